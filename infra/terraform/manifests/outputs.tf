output "namespaces" {
  description = "The namespaces, which come first."
  value       = { for key, one in local.objects : key => one if one.kind == "Namespace" }
}

output "objects" {
  description = "Everything else, by kind/namespace/name."
  value       = { for key, one in local.objects : key => one if one.kind != "Namespace" }
}
