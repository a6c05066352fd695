variable "name" {
  description = "Prefix of the names of all resources."
  type        = string
  default     = "slotkeeper-gpu-node"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,39}$", var.name))
    error_message = "Must be at most 40 lower-case letters, digits and hyphens, and begin with a letter."
  }
}

variable "region" {
  description = "Region in which the image is built, and where it is available."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "Must be the name of a region, such as eu-central-1."
  }
}

variable "parent_image" {
  description = "AMI to start from, with an NVIDIA driver, the NVIDIA Container Toolkit, containerd and the agent of Systems Manager: for EKS, its AMI of the variant `nvidia`."
  type        = string

  validation {
    condition     = can(regex("^ami-([0-9a-f]{8}|[0-9a-f]{17})$", var.parent_image))
    error_message = "Must be the ID of an AMI, ami-…, so that a build can be repeated. README.md has the command that finds it."
  }
}

variable "image_version" {
  description = "Version of the recipe and of the components. Names change with their content, so that it need not be raised."
  type        = string
  default     = "1.0.0"

  validation {
    condition     = can(regex("^[0-9]+[.][0-9]+[.][0-9]+$", var.image_version))
    error_message = "Must be MAJOR.MINOR.PATCH."
  }
}

variable "min_driver_version" {
  description = "Oldest version of the NVIDIA driver that the images of llama-server need. The default is that of CUDA 12.4."
  type        = string
  default     = "550.54.14"
}

variable "images" {
  description = "Images to pull, each with its digest: REGISTRY/REPOSITORY:TAG@sha256:DIGEST."
  type        = list(string)
}

variable "download_image" {
  description = "The chart's image `download`, with its digest. Required with models."
  type        = string
  default     = null
}

variable "models" {
  description = "Models for the node cache: the namespace of the LlamaServers that use them, and their model.url and model.sha256."
  type = list(object({
    namespace = string
    url       = string
    sha256    = string
  }))
  default = []
}

variable "models_folder" {
  description = "Folder of the node cache, nodeCache.path of the chart."
  type        = string
  default     = "/var/lib/slotkeeper/models"
}

variable "pull_timeout_seconds" {
  description = "Maximum duration of the steps that pull images and download models."
  type        = number
  default     = 7200
}

variable "additional_component_arns" {
  description = "Components that run before ours, such as one that installs a newer driver."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.additional_component_arns : can(regex("^arn:[a-z-]+:imagebuilder:", arn))])
    error_message = "Each must be the ARN of an Image Builder component."
  }
}

variable "instance_types" {
  description = "Types of the build and test instances, in order. They need an NVIDIA GPU."
  type        = list(string)
  default     = ["g4dn.xlarge", "g5.xlarge"]

  validation {
    condition     = length(var.instance_types) > 0 && alltrue([for each in var.instance_types : can(regex("^(g|p)[0-9][a-z0-9]*[.]", each))])
    error_message = "Each must be of a family with NVIDIA GPUs, such as g4dn.xlarge: the driver is checked on it."
  }
}

variable "subnet_id" {
  description = "Subnet of the build and test instances, with a way to the registries. Default: one of the default VPC."
  type        = string
  default     = null
}

variable "security_group_ids" {
  description = "Security groups of the instances. Required with subnet_id. They need no ingress."
  type        = list(string)
  default     = []
}

variable "root_device_name" {
  description = "Root device of parent_image."
  type        = string
  default     = "/dev/xvda"
}

variable "volume_size" {
  description = "Size of the root volume in GiB: images, unpacked and as blobs, models, and room for the node."
  type        = number
  default     = 100

  validation {
    condition     = var.volume_size >= 30 && var.volume_size <= 16384 && floor(var.volume_size) == var.volume_size
    error_message = "Must be a whole number from 30 to 16384."
  }
}

variable "kms_key_arn" {
  description = "KMS key of the image's snapshots. Default: the account's key for EBS."
  type        = string
  default     = null
}

variable "ecr_repository_arns" {
  description = "Repositories of ECR that images are pulled from."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.ecr_repository_arns : can(regex("^arn:[a-z-]+:ecr:[a-z0-9-]+:[0-9]{12}:repository/[^*]+$", arn))])
    error_message = "Each must be the ARN of one repository, without wildcards."
  }
}

variable "log_bucket" {
  description = "S3 bucket for the logs of builds. Default: none; CloudWatch has them."
  type        = string
  default     = null
}

variable "launch_account_ids" {
  description = "Other accounts that may launch instances of the image."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.launch_account_ids : can(regex("^[0-9]{12}$", id))])
    error_message = "Each must be the ID of an account, 12 digits."
  }
}

variable "schedule" {
  description = "When to build, such as cron(0 3 ? * sun *), in UTC. Default: only when the pipeline is started."
  type        = string
  default     = null

  validation {
    condition     = var.schedule == null ? true : can(regex("^(cron[(]\\S+ \\S+ \\S+ \\S+ \\S+ \\S+[)]|rate[(].+[)])$", var.schedule))
    error_message = "Must be a cron expression with six fields, such as cron(0 3 ? * sun *)."
  }
}

variable "tags" {
  description = "Tags of all resources and of the image."
  type        = map(string)
  default     = {}
}
