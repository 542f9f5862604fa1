# terraform test: no cluster and no provider needed.

variables {
  bot_image              = "ghcr.io/acme/bot@sha256:1"
  mlflow_image           = "ghcr.io/acme/mlflow@sha256:2"
  trainer_image_prefixes = ["ghcr.io/acme/"]
  settings               = { SIGNALBOX_TIMEZONE = "Europe/Berlin" }
  policy                 = null
  currency               = "USD"
  rates = [{
    version         = "2026-02"
    effective_from  = "2026-02-01T00:00:00Z"
    cpu_core_hour   = "0.06"
    memory_gib_hour = "0"
    gpu_hour        = { any = "0.30" }
  }]
  storage_class = "fast"
  home_size     = "6Gi"
  mlflow_size   = "70Gi"
  mlflow_memory = { request = "2Gi", limit = "4Gi" }
  quota         = { "requests.cpu" = "64" }
  gpus          = 4
  device_plugin = true
  kueue         = true
  hub           = true
}

run "changed" {
  command = plan

  assert {
    condition     = output.objects["Deployment/signalbox/signalbox-bot"].spec.template.spec.containers[0].image == "ghcr.io/acme/bot@sha256:1"
    error_message = "the bot's image"
  }
  assert {
    condition     = output.objects["Deployment/signalbox/mlflow"].spec.template.spec.containers[0].resources.limits == { cpu = "2", memory = "4Gi", ephemeral-storage = "10Gi" }
    error_message = "MLflow's memory, and nothing else of its limits"
  }
  assert {
    condition     = output.objects["PersistentVolumeClaim/signalbox/mlflow"].spec.resources.requests.storage == "70Gi" && output.objects["PersistentVolumeClaim/signalbox/signalbox-home"].spec.storageClassName == "fast"
    error_message = "volumes"
  }
  assert {
    condition     = output.objects["ResourceQuota/ml-training/training"].spec.hard["requests.nvidia.com/gpu"] == "4" && output.objects["ResourceQuota/ml-training/training"].spec.hard["requests.cpu"] == "64" && output.objects["ResourceQuota/ml-training/training"].spec.hard["count/secrets"] == "0"
    error_message = "the quota"
  }
  assert {
    condition     = one([for each in output.objects["ClusterQueue/training"].spec.resourceGroups[0].flavors[0].resources : each.nominalQuota if each.name == "nvidia.com/gpu"]) == "4"
    error_message = "the queue follows the quota"
  }
  assert {
    condition     = output.objects["ConfigMap/signalbox/signalbox-settings"].data.SIGNALBOX_QUEUE == output.objects["LocalQueue/ml-training/training"].metadata.name
    error_message = "trainings wait in the queue"
  }
  assert {
    condition     = yamldecode(output.objects["ConfigMap/signalbox/training-cost-rates"].data["rates.yaml"]).versions[0].gpu_hour.any == "0.30"
    error_message = "the rates stay text"
  }
  assert {
    condition     = output.objects["ConfigMap/signalbox/signalbox-settings"].data.SIGNALBOX_TIMEZONE == "Europe/Berlin" && output.objects["ConfigMap/signalbox/signalbox-settings"].data.SIGNALBOX_HTTP_HOST == "0.0.0.0"
    error_message = "settings are merged"
  }
  assert {
    condition     = output.objects["ConfigMap/ml-training/signalbox-admission"].data["image-prefixes"] == "ghcr.io/acme/"
    error_message = "the allowed images"
  }
  assert {
    condition     = contains(keys(output.objects), "DaemonSet/kube-system/nvidia-device-plugin") && contains(keys(output.objects), "NetworkPolicy/ml-training/hub")
    error_message = "the components"
  }
  assert {
    condition     = length(output.namespaces) == 2
    error_message = "both namespaces"
  }
}

run "without_gpus" {
  command = plan
  variables {
    gpus          = 0
    kueue         = false
    hub           = false
    storage_class = null
  }

  assert {
    condition     = !contains(keys(output.objects), "DaemonSet/kube-system/nvidia-device-plugin") && !contains(keys(output.objects), "ClusterQueue/training") && !contains(keys(output.objects), "NetworkPolicy/ml-training/hub")
    error_message = "no component"
  }
  assert {
    condition     = !contains(keys(output.objects["ConfigMap/signalbox/signalbox-settings"].data), "SIGNALBOX_QUEUE")
    error_message = "no queue"
  }
  assert {
    condition     = output.objects["ResourceQuota/ml-training/training"].spec.hard["requests.nvidia.com/gpu"] == "0"
    error_message = "no GPU"
  }
  assert {
    condition     = !can(output.objects["PersistentVolumeClaim/signalbox/mlflow"].spec.storageClassName)
    error_message = "the cluster's default class"
  }
}

run "another_queue" {
  command = plan
  variables {
    settings = { SIGNALBOX_QUEUE = "another" }
  }

  assert {
    condition     = output.objects["ConfigMap/signalbox/signalbox-settings"].data.SIGNALBOX_QUEUE == "another"
    error_message = "your settings come last"
  }
}

run "a_prefix_must_end" {
  command = plan
  variables {
    trainer_image_prefixes = ["signalbox-trainer"]
  }
  expect_failures = [var.trainer_image_prefixes]
}
