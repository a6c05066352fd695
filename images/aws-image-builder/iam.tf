# The role of the build and test instances: what Image Builder needs on them, and reading the images.

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.${data.aws_partition.current.dns_suffix}"]
    }
  }
}

data "aws_iam_policy_document" "build" {
  statement {
    sid     = "ReadComponents"
    actions = ["imagebuilder:GetComponent"]
    resources = concat(
      [for component in aws_imagebuilder_component.this : component.arn],
      # An ARN with x for a number names the newest version; the request names that one.
      [for arn in var.additional_component_arns : replace(arn, "/\\/[0-9x.]*x[0-9x.]*$/", "/*")],
    )
  }

  statement {
    sid       = "DownloadTaskExecutor"
    actions   = ["s3:GetObject"]
    resources = ["arn:${data.aws_partition.current.partition}:s3:::ec2imagebuilder*"]
  }

  statement {
    sid     = "WriteLogs"
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
    resources = [
      "arn:${data.aws_partition.current.partition}:logs:${var.region}:${data.aws_caller_identity.current.account_id}:log-group:/aws/imagebuilder/*",
    ]
  }

  dynamic "statement" {
    for_each = var.log_bucket == null ? [] : [var.log_bucket]

    content {
      sid       = "WriteLogsToBucket"
      actions   = ["s3:PutObject"]
      resources = ["arn:${data.aws_partition.current.partition}:s3:::${statement.value}/${var.name}/*"]
    }
  }

  dynamic "statement" {
    for_each = length(var.ecr_repository_arns) == 0 ? [] : [var.ecr_repository_arns]

    content {
      sid       = "PullImages"
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = length(var.ecr_repository_arns) == 0 ? [] : [var.ecr_repository_arns]

    content {
      sid       = "LogInToRegistry"
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"] # The action has no resources.
    }
  }
}

resource "aws_iam_role" "build" {
  name               = "${var.name}-build"
  description        = "Build and test instances of Image Builder"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "build" {
  name   = "build"
  role   = aws_iam_role.build.name
  policy = data.aws_iam_policy_document.build.json
}

# Image Builder runs the components through the agent of Systems Manager.
resource "aws_iam_role_policy_attachment" "systems_manager" {
  role       = aws_iam_role.build.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "build" {
  name = "${var.name}-build"
  role = aws_iam_role.build.name
}
