variable "min_driver_version" {
  description = "Oldest version of the NVIDIA driver that the images of llama-server need."
  type        = string

  validation {
    condition     = can(regex("^[0-9]+([.][0-9]+)+$", var.min_driver_version))
    error_message = "Must be a version such as 550.54.14."
  }
}

variable "images" {
  description = "Images to pull, each with its digest: REGISTRY/REPOSITORY:TAG@sha256:DIGEST. Pods may name them by tag or by digest."
  type        = list(string)

  validation {
    condition = alltrue([
      for image in var.images :
      can(regex("^[a-z0-9-]+([.][a-z0-9-]+)*(:[0-9]+)?/[a-z0-9._/-]+(:[a-zA-Z0-9_.-]+)?@sha256:[0-9a-f]{64}$", image))
      && can(regex("^([^/]*[.:][^/]*|localhost)/", image))
    ])
    error_message = "Each must be REGISTRY/REPOSITORY:TAG@sha256:DIGEST, such as docker.io/team/llama-server:1@sha256:…: a tag alone may be another image tomorrow."
  }
}

variable "download_image" {
  description = "The chart's image `download`, with its digest, which downloads the models. Required with models."
  type        = string
  default     = null

  validation {
    condition     = var.download_image == null ? true : can(regex("^[a-z0-9-]+([.][a-z0-9-]+)*(:[0-9]+)?/[a-z0-9._/-]+(:[a-zA-Z0-9_.-]+)?@sha256:[0-9a-f]{64}$", var.download_image))
    error_message = "Must be REGISTRY/REPOSITORY:TAG@sha256:DIGEST."
  }
}

variable "models" {
  description = "Models for the node cache: the namespace of the LlamaServers that use them, and their model.url and model.sha256."
  type = list(object({
    namespace = string
    url       = string
    sha256    = string
  }))

  validation {
    condition     = alltrue([for model in var.models : can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", model.namespace))])
    error_message = "namespace must be the name of a Kubernetes namespace."
  }

  validation {
    condition     = alltrue([for model in var.models : can(regex("^(https|hf|oci)://[-a-zA-Z0-9._~/?#@!$&()*+,;=:%]+$", model.url))])
    error_message = "url must begin with https://, hf:// or oci://. No credentials are sent: put models that need some into an image with `slotkeeper bake`, and the image into images."
  }

  validation {
    condition     = alltrue([for model in var.models : !can(regex("^https://[^/?#]*@|[?&](X-Amz-Signature|[a-z_]*[Tt]oken|[Ss]ig(nature)?)=", model.url))])
    error_message = "url must have no credentials: anyone who may read the component sees it."
  }

  validation {
    condition     = alltrue([for model in var.models : !can(regex("-[0-9]{5}-of-[0-9]{5}[.]gguf", model.url))])
    error_message = "Split models are not supported: put them into an image with `slotkeeper bake`, and the image into images."
  }

  validation {
    condition     = alltrue([for model in var.models : can(regex("^[0-9a-fA-F]{64}$", model.sha256))])
    error_message = "sha256 must be 64 hexadecimal digits: the node cache finds a file by it."
  }
}

variable "models_folder" {
  description = "Folder of the node cache, nodeCache.path of the chart."
  type        = string

  validation {
    condition     = can(regex("^(/[a-zA-Z0-9._-]+)+$", var.models_folder)) && !can(regex("/[.][.]?(/|$)", var.models_folder))
    error_message = "Must be an absolute path without a slash at its end."
  }
}

variable "pull_timeout_seconds" {
  description = "Maximum duration of the steps that pull images and download models."
  type        = number

  validation {
    condition     = var.pull_timeout_seconds >= 60 && var.pull_timeout_seconds <= 43200
    error_message = "Must be 60 to 43200 seconds."
  }
}
