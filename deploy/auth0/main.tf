# The Action, its place in the Login flow, and the API that holdfast guards.
#
#   terraform init && terraform apply -var namespace=https://claims.example.com
#
# The provider reads AUTH0_DOMAIN, AUTH0_CLIENT_ID and AUTH0_CLIENT_SECRET from the environment.

terraform {
  required_providers {
    auth0 = {
      source  = "auth0/auth0"
      version = "~> 1.7" # 1.7.0 brought token_encryption; the runtime node22 needs a later one, node18 works with any
    }
  }
}

variable "namespace" {
  type        = string
  description = "https URL that you control, not under an Auth0 domain; it is a name and is never called."
  validation {
    condition     = can(regex("^https://[^?#@[:space:]]+$", var.namespace))
    error_message = "The namespace must be an https URL without query or fragment."
  }
}

variable "audience" {
  type        = string
  description = "Identifier of the API: the audience that applications ask for, and holdfast's `audience`."
  default     = "https://api.example.com"
}

variable "jwe_public_key_file" {
  type        = string
  description = "PEM file of the RSA public key that access tokens are encrypted to; empty: tokens are signed only."
  default     = ""
}

resource "auth0_action" "holdfast_email" {
  name    = "holdfast-email"
  runtime = "node22"
  deploy  = true
  code    = file("${path.module}/action.js")

  supported_triggers {
    id      = "post-login"
    version = "v3"
  }

  secrets {
    name  = "HOLDFAST_NAMESPACE"
    value = var.namespace
  }

  secrets {
    name  = "HOLDFAST_REQUIRE_VERIFIED"
    value = "false"
  }
}

# Appends the Action to the Login flow and leaves the others as they are.
resource "auth0_trigger_action" "holdfast_email" {
  trigger   = "post-login"
  action_id = auth0_action.holdfast_email.id
}

# Where Terraform manages the whole flow, use this one instead, never both. It is the complete list, in order: an
# Action that is not named here no longer runs.
#
# resource "auth0_trigger_actions" "login_flow" {
#   trigger = "post-login"
#
#   actions {
#     id           = auth0_action.holdfast_email.id
#     display_name = auth0_action.holdfast_email.name
#   }
# }

# Remove this resource if the API exists already and is managed elsewhere.
resource "auth0_resource_server" "api" {
  name        = "Example API"
  identifier  = var.audience
  signing_alg = "RS256"

  # Needs the Enterprise plan with Highly Regulated Identity.
  dynamic "token_encryption" {
    for_each = var.jwe_public_key_file == "" ? [] : [file(var.jwe_public_key_file)]
    content {
      format = "compact-nested-jwe"
      encryption_key {
        name      = "holdfast"
        algorithm = "RSA-OAEP-256"
        pem       = token_encryption.value
      }
    }
  }
}
