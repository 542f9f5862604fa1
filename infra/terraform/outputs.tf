output "objects" {
  description = "What is installed, by kind/namespace/name."
  value       = sort(concat(keys(module.manifests.namespaces), keys(module.manifests.objects)))
}
