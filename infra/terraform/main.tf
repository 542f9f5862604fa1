# Applies what ./manifests makes of the YAML in ../k8s. The Secret signalbox-secrets is yours to make: what Terraform
# makes stands in its state.

module "manifests" {
  source = "./manifests"

  bot_image              = var.bot_image
  mlflow_image           = var.mlflow_image
  trainer_image_prefixes = var.trainer_image_prefixes
  settings               = var.settings
  policy                 = var.policy
  currency               = var.currency
  rates                  = var.rates
  storage_class          = var.storage_class
  home_size              = var.home_size
  mlflow_size            = var.mlflow_size
  mlflow_memory          = var.mlflow_memory
  quota                  = var.quota
  gpus                   = var.gpus
  device_plugin          = var.device_plugin
  kueue                  = var.kueue
  hub                    = var.hub
}

resource "kubernetes_manifest" "namespace" {
  for_each = module.manifests.namespaces
  manifest = each.value
}

resource "kubernetes_manifest" "object" {
  for_each   = module.manifests.objects
  manifest   = each.value
  depends_on = [kubernetes_manifest.namespace]
}
