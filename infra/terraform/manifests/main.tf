# The YAML of ../../k8s is the one truth: it is read here, and only what a variable names is changed.
# No provider is needed, so `terraform test` runs without a cluster.

terraform {
  required_version = ">= 1.6"
}

locals {
  k8s = "${path.module}/../../k8s"

  # What each kustomization lists, as kustomize would take it.
  folders = concat(
    ["base"],
    var.device_plugin && var.gpus > 0 ? ["components/nvidia"] : [],
    var.kueue ? ["components/kueue"] : [],
    var.hub ? ["components/hub"] : [],
  )
  files = flatten([
    for folder in local.folders : [
      for file in yamldecode(file("${local.k8s}/${folder}/kustomization.yaml")).resources : "${local.k8s}/${folder}/${file}"
    ]
  ])
  documents = flatten([
    for file in local.files : [
      for text in split("\n---\n", file(file)) : yamldecode(text)
    ]
  ])
  given = {
    for one in local.documents :
    join("/", compact([one.kind, lookup(one.metadata, "namespace", ""), one.metadata.name])) => one
  }

  bot    = local.given["Deployment/signalbox/signalbox-bot"]
  mlflow = local.given["Deployment/signalbox/mlflow"]
  home   = local.given["PersistentVolumeClaim/signalbox/signalbox-home"]
  store  = local.given["PersistentVolumeClaim/signalbox/mlflow"]
  quota  = local.given["ResourceQuota/ml-training/training"]
  queue  = lookup(local.given, "ClusterQueue/training", null)

  volume_class = var.storage_class == null ? {} : { storageClassName = var.storage_class }
  hard         = merge(local.quota.spec.hard, var.quota, { "requests.nvidia.com/gpu" = tostring(var.gpus) })
  data = {
    "ConfigMap/signalbox/signalbox-settings" = merge(
      local.given["ConfigMap/signalbox/signalbox-settings"].data,
      var.kueue ? { SIGNALBOX_QUEUE = "training" } : {},
      var.settings,
    )
    "ConfigMap/signalbox/signalbox-policy" = {
      "policy.yaml" = coalesce(var.policy, local.given["ConfigMap/signalbox/signalbox-policy"].data["policy.yaml"])
    }
    "ConfigMap/signalbox/training-cost-rates" = {
      "rates.yaml" = yamlencode({ currency = var.currency, versions = var.rates })
    }
    "ConfigMap/ml-training/signalbox-admission" = merge(
      local.given["ConfigMap/ml-training/signalbox-admission"].data,
      { "image-prefixes" = join(",", var.trainer_image_prefixes) }
    )
  }

  # Top-level fields that replace those of the YAML.
  changes = merge(
    { for key, value in local.data : key => { data = value } },
    {
      "Deployment/signalbox/signalbox-bot" = { spec = merge(local.bot.spec, { template = merge(local.bot.spec.template, {
        # A changed setting or rate starts the bot anew; a changed policy it reads by itself.
        metadata = merge(local.bot.spec.template.metadata, { annotations = {
          "signalbox.dev/settings" = sha256(jsonencode([
            local.data["ConfigMap/signalbox/signalbox-settings"], local.data["ConfigMap/signalbox/training-cost-rates"]
          ]))
        } })
        spec = merge(local.bot.spec.template.spec, { containers = [
          for one in local.bot.spec.template.spec.containers : merge(one, { image = var.bot_image })
        ] })
      }) }) }
      "Deployment/signalbox/mlflow" = { spec = merge(local.mlflow.spec, { template = merge(local.mlflow.spec.template, {
        spec = merge(local.mlflow.spec.template.spec, { containers = [
          for one in local.mlflow.spec.template.spec.containers : merge(one, {
            image = var.mlflow_image
            resources = {
              requests = merge(one.resources.requests, { memory = var.mlflow_memory.request })
              limits   = merge(one.resources.limits, { memory = var.mlflow_memory.limit })
            }
          })
        ] })
      }) }) }
      "PersistentVolumeClaim/signalbox/signalbox-home" = { spec = merge(local.home.spec, local.volume_class, {
        resources = { requests = { storage = var.home_size } }
      }) }
      "PersistentVolumeClaim/signalbox/mlflow" = { spec = merge(local.store.spec, local.volume_class, {
        resources = { requests = { storage = var.mlflow_size } }
      }) }
      "ResourceQuota/ml-training/training" = { spec = { hard = local.hard } }
    },
    # Kueue admits as much as the quota bears.
    local.queue == null ? {} : {
      "ClusterQueue/training" = { spec = merge(local.queue.spec, { resourceGroups = [
        for group in local.queue.spec.resourceGroups : merge(group, { flavors = [
          for flavor in group.flavors : merge(flavor, { resources = [
            for one in flavor.resources : merge(one, { nominalQuota = local.hard["requests.${one.name}"] })
          ] })
        ] })
      ] }) }
    },
  )

  objects = {
    for key, one in local.given : key => merge(
      one,
      { metadata = merge(one.metadata, {
        labels = merge(try(one.metadata.labels, {}), { "app.kubernetes.io/part-of" = "signalbox" })
      }) },
      try(local.changes[key], {})
    )
  }
}
