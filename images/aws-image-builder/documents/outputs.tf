output "documents" {
  description = "The YAML document of each component. Without models there is none for them."
  value       = { for name, document in local.documents : name => document if name != "models" || length(var.models) > 0 }

  precondition {
    condition     = length(var.models) == 0 || var.download_image != null
    error_message = "models requires download_image, which downloads them."
  }

  precondition {
    # The limit of CreateComponent for documents that are not in S3.
    condition     = alltrue([for document in values(local.documents) : length(document) <= 16000])
    error_message = "A component document is longer than 16000 characters: list fewer images or models."
  }
}
