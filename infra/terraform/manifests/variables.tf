variable "bot_image" {
  description = "The bot's image, by digest in production."
  type        = string
}

variable "mlflow_image" {
  description = "An image with MLflow 3.17 or newer."
  type        = string
}

variable "trainer_image_prefixes" {
  description = "Where trainers' images may come from; each ends in /, : or @."
  type        = list(string)

  validation {
    condition     = alltrue([for one in var.trainer_image_prefixes : can(regex("^[^,]+[/:@]$", one))])
    error_message = "Each prefix must end in /, : or @, and hold no comma."
  }
}

variable "settings" {
  description = "Settings of the bot that differ from k8s/base/bot/settings.yaml, by their names in .env.example."
  type        = map(string)
}

variable "policy" {
  description = "Text of the policy file; null: the base's, by which nobody may approve."
  type        = string
}

variable "currency" {
  description = "Currency of the rates."
  type        = string
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
}

variable "storage_class" {
  description = "StorageClass of the volumes; null: the cluster's default."
  type        = string
}

variable "home_size" {
  description = "Size of the bot's volume."
  type        = string
}

variable "mlflow_size" {
  description = "Size of MLflow's volume."
  type        = string
}

variable "mlflow_memory" {
  description = "MLflow's memory: request and limit."
  type        = object({ request = string, limit = string })
}

variable "quota" {
  description = "What differs from the quota in k8s/base/training/quota.yaml."
  type        = map(string)
}

variable "gpus" {
  description = "GPUs that all trainings together may hold; 0 turns GPUs off."
  type        = number

  validation {
    condition     = var.gpus >= 0 && floor(var.gpus) == var.gpus
    error_message = "gpus must be 0 or a whole number above."
  }
}

variable "device_plugin" {
  description = "Whether to install NVIDIA's device plugin; no effect without GPUs."
  type        = bool
}

variable "kueue" {
  description = "Whether to make the queue; Kueue itself must be installed before."
  type        = bool
}

variable "hub" {
  description = "Whether trainings may reach the internet over HTTPS, for models and data."
  type        = bool
}
