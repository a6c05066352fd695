output "pipeline_arn" {
  description = "ARN of the pipeline, for `aws imagebuilder start-image-pipeline-execution`."
  value       = aws_imagebuilder_image_pipeline.this.arn
}

output "recipe" {
  description = "Name of the recipe, and value of the AMI's tag slotkeeper.dev/recipe."
  value       = { name = aws_imagebuilder_image_recipe.this.name, hash = local.recipe_hash }
}

output "role_name" {
  description = "Role of the build instances."
  value       = aws_iam_role.build.name
}
