variable "kubeconfig" {
  description = "Path of the kubeconfig; who it speaks for must be allowed to make roles and admission policies."
  type        = string
  default     = "~/.kube/config"
}

variable "kube_context" {
  description = "Context of the kubeconfig; null: the current one."
  type        = string
  default     = null
}

variable "bot_image" {
  description = "The bot's image, by digest in production."
  type        = string
  default     = "signalbox-bot:0.1.0"
}

variable "mlflow_image" {
  description = "An image with MLflow 3.17 or newer."
  type        = string
  default     = "signalbox-mlflow:0.1.0"
}

variable "trainer_image_prefixes" {
  description = "Where trainers' images may come from; each ends in /, : or @."
  type        = list(string)
  default     = ["signalbox-trainer:", "signalbox-trainer@"]
}

variable "settings" {
  description = "Settings of the bot that differ from k8s/base/bot/settings.yaml, by their names in .env.example."
  type        = map(string)
  default     = {}
}

variable "policy" {
  description = "Text of the policy file, as file(\"policy.yaml\"); null: the base's, by which nobody may approve."
  type        = string
  default     = null
}

variable "currency" {
  description = "Currency of the rates."
  type        = string
  default     = "USD"
}

variable "rates" {
  description = "What an hour costs, as in tools/rates.yaml: amounts as text; never change a version that was in force."
  type = list(object({
    version         = string
    effective_from  = string
    cpu_core_hour   = string
    memory_gib_hour = string
    gpu_hour        = map(string)
    spot = optional(object({
      cpu_core_hour   = optional(string)
      memory_gib_hour = optional(string)
      gpu_hour        = optional(map(string), {})
    }), {})
  }))
  default = [{
    version         = "2026-01"
    effective_from  = "2026-01-01T00:00:00Z"
    cpu_core_hour   = "0.05"
    memory_gib_hour = "0"
    gpu_hour        = { any = "0.25" }
  }]
}

variable "storage_class" {
  description = "StorageClass of the volumes; null: the cluster's default."
  type        = string
  default     = null
}

variable "home_size" {
  description = "Size of the bot's volume."
  type        = string
  default     = "5Gi"
}

variable "mlflow_size" {
  description = "Size of MLflow's volume."
  type        = string
  default     = "50Gi"
}

variable "mlflow_memory" {
  description = "MLflow's memory: request and limit."
  type        = object({ request = string, limit = string })
  default     = { request = "1Gi", limit = "2Gi" }
}

variable "quota" {
  description = "What differs from the quota in k8s/base/training/quota.yaml, such as {\"requests.cpu\" = \"64\"}."
  type        = map(string)
  default     = {}
}

variable "gpus" {
  description = "GPUs that all trainings together may hold; 0 turns GPUs off."
  type        = number
  default     = 2
}

variable "device_plugin" {
  description = "Whether to install NVIDIA's device plugin; not where the cloud or the GPU operator does."
  type        = bool
  default     = false
}

variable "kueue" {
  description = "Whether to make the queue; Kueue itself must be installed before."
  type        = bool
  default     = false
}

variable "hub" {
  description = "Whether trainings may reach the internet over HTTPS, for models and data."
  type        = bool
  default     = false
}
