# The component documents, as text. A module of its own without a provider, so that it can be evaluated
# and tested without AWS.

locals {
  steps = "${path.module}/../steps"

  # The values are checked below: none has a quotation mark, or braces, which Image Builder replaces.
  environment = {
    gpu = {
      MIN_DRIVER_VERSION = var.min_driver_version
    }
    images = {
      IMAGES = join(" ", local.images)
    }
    models = {
      DOWNLOAD_IMAGE = var.download_image == null ? "" : local.download_reference
      MODELS_FOLDER  = var.models_folder
      MODELS         = join("\n", [for model in var.models : "${model.namespace} ${model.url} ${lower(model.sha256)}"])
    }
  }

  images = distinct(concat(var.images, var.download_image == null ? [] : [var.download_image]))

  # REPOSITORY@DIGEST, which is how the image is named in containerd.
  download_reference = var.download_image == null ? "" : replace(var.download_image, "/:[^:/@]+@/", "@")

  phases = {
    gpu = {
      build    = [{ script = "check-driver" }, { script = "configure-containerd" }]
      validate = [{ script = "check-driver" }]
      test     = [{ script = "check-driver" }]
    }
    images = {
      build    = [{ script = "pull-images", timeout = var.pull_timeout_seconds }]
      validate = [{ script = "verify-images" }]
      test     = [{ script = "verify-images" }]
    }
    models = {
      build    = [{ script = "fetch-models", timeout = var.pull_timeout_seconds }]
      validate = [{ script = "verify-models", timeout = var.pull_timeout_seconds }]
      # The disk of a new instance reads from S3 what it has not read before.
      test = [{ script = "verify-models", environment = { CHECKSUMS = "no" } }]
    }
  }

  documents = {
    for component, phases in local.phases : component => yamlencode({
      name          = "slotkeeper-${component}"
      description   = local.descriptions[component]
      schemaVersion = 1.0
      phases = [for phase in ["build", "validate", "test"] : {
        name = phase
        steps = [for step in phases[phase] : {
          name           = step.script
          action         = "ExecuteBash"
          onFailure      = "Abort"
          timeoutSeconds = lookup(step, "timeout", 600)
          inputs = {
            commands = concat(
              [for name, value in merge(local.environment[component], lookup(step, "environment", {})) : "export ${name}='${value}'"],
              [file("${local.steps}/${step.script}.sh")],
            )
          }
        }]
      }]
    })
  }

  descriptions = {
    gpu    = "Checks the NVIDIA driver, and configures containerd for it"
    images = "Pulls images into the kubelet's containerd"
    models = "Downloads models into the node cache of Slotkeeper"
  }
}
