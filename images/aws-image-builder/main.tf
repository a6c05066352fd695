data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

module "documents" {
  source = "./documents"

  min_driver_version   = var.min_driver_version
  images               = var.images
  download_image       = var.download_image
  models               = var.models
  models_folder        = var.models_folder
  pull_timeout_seconds = var.pull_timeout_seconds
}

locals {
  # In the order in which they run.
  components = [for name in ["gpu", "images", "models"] : name if contains(keys(module.documents.documents), name)]

  # A component and a recipe cannot be changed: their names change with their content.
  hashes = { for name, document in module.documents.documents : name => substr(sha256(document), 0, 10) }

  recipe_hash = substr(sha256(jsonencode([
    var.parent_image, var.volume_size, var.root_device_name, var.kms_key_arn, var.additional_component_arns, local.hashes,
  ])), 0, 10)
}

resource "aws_imagebuilder_component" "this" {
  for_each = toset(local.components)

  name        = "${var.name}-${each.key}-${local.hashes[each.key]}"
  description = "Slotkeeper: ${each.key} of a GPU node"
  platform    = "Linux"
  version     = var.image_version
  data        = module.documents.documents[each.key]

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_imagebuilder_image_recipe" "this" {
  name         = "${var.name}-${local.recipe_hash}"
  description  = "GPU node with images and models of Slotkeeper"
  parent_image = var.parent_image
  version      = var.image_version

  block_device_mapping {
    device_name = var.root_device_name

    ebs {
      delete_on_termination = true
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      volume_size           = var.volume_size
      volume_type           = "gp3"
    }
  }

  dynamic "component" {
    for_each = concat(var.additional_component_arns, [for name in local.components : aws_imagebuilder_component.this[name].arn])

    content {
      component_arn = component.value
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_imagebuilder_infrastructure_configuration" "this" {
  name                          = var.name
  description                   = "GPU instances without ingress"
  instance_profile_name         = aws_iam_instance_profile.build.name
  instance_types                = var.instance_types
  subnet_id                     = var.subnet_id
  security_group_ids            = var.security_group_ids
  terminate_instance_on_failure = true
  resource_tags                 = var.tags

  instance_metadata_options {
    http_put_response_hop_limit = 1
    http_tokens                 = "required"
  }

  dynamic "logging" {
    for_each = var.log_bucket == null ? [] : [var.log_bucket]

    content {
      s3_logs {
        s3_bucket_name = logging.value
        s3_key_prefix  = var.name
      }
    }
  }

  lifecycle {
    precondition {
      condition     = (var.subnet_id == null) == (length(var.security_group_ids) == 0)
      error_message = "subnet_id and security_group_ids require each other."
    }
  }
}

resource "aws_imagebuilder_distribution_configuration" "this" {
  name        = var.name
  description = "The AMI, in the region where it is built"

  distribution {
    region = var.region

    ami_distribution_configuration {
      name        = "${var.name}-{{ imagebuilder:buildDate }}"
      description = "GPU node with images and models of Slotkeeper, from ${var.parent_image}"
      kms_key_id  = var.kms_key_arn
      ami_tags    = merge(var.tags, { "slotkeeper.dev/recipe" = local.recipe_hash })

      dynamic "launch_permission" {
        for_each = length(var.launch_account_ids) == 0 ? [] : [var.launch_account_ids]

        content {
          user_ids = launch_permission.value
        }
      }
    }
  }
}

resource "aws_imagebuilder_image_pipeline" "this" {
  name                             = var.name
  description                      = "Builds the AMI of GPU nodes"
  image_recipe_arn                 = aws_imagebuilder_image_recipe.this.arn
  infrastructure_configuration_arn = aws_imagebuilder_infrastructure_configuration.this.arn
  distribution_configuration_arn   = aws_imagebuilder_distribution_configuration.this.arn

  image_tests_configuration {
    image_tests_enabled = true
    timeout_minutes     = 60
  }

  dynamic "schedule" {
    for_each = var.schedule == null ? [] : [var.schedule]

    content {
      schedule_expression                = schedule.value
      pipeline_execution_start_condition = "EXPRESSION_MATCH_ONLY"
    }
  }

  lifecycle {
    replace_triggered_by = [aws_imagebuilder_image_recipe.this]
  }
}
