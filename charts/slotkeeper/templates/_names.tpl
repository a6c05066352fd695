{{- define "slotkeeper.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "slotkeeper.fullname" -}}
{{- $name := include "slotkeeper.name" . }}
{{- $both := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $both | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "slotkeeper.serviceAccountName" -}}
{{- $own := .Values.serviceAccount.create | ternary (include "slotkeeper.fullname" .) "default" }}
{{- .Values.serviceAccount.name | default $own }}
{{- end }}

{{/* The namespace of the operator's own Lease, one that it watches: the release's own where it can be. */}}
{{- define "slotkeeper.leaseNamespace" -}}
{{- $watched := .Values.watchNamespaces }}
{{- or (empty $watched) (has .Release.Namespace $watched) | ternary .Release.Namespace (first $watched) }}
{{- end }}

{{/* The name of an admission policy: (list ROOT SUFFIX). It is unique in the cluster, unlike a release's name. */}}
{{- define "slotkeeper.policyName" -}}
{{- $root := index . 0 }}
{{- include "slotkeeper.fullname" $root }}-{{ index . 1 }}.{{ $root.Release.Namespace }}
{{- end }}

{{/* The message of a rule of llamaServerPolicy: (list ROOT VALUE FIELD WHAT). */}}
{{- define "slotkeeper.forbidden" -}}
{{- $allowed := index (index . 0).Values.llamaServerPolicy (index . 1) }}
{{- printf "%s: the administrator of Slotkeeper allows only these %s: %s (chart value llamaServerPolicy.%s)" (index . 2) (index . 3) (join ", " $allowed | default "none") (index . 1) | toJson }}
{{- end }}

{{/* Labels for selectors. They must never change, because the selector of a Deployment is immutable. */}}
{{- define "slotkeeper.selectorLabels" -}}
app.kubernetes.io/name: {{ include "slotkeeper.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "slotkeeper.labels" -}}
{{ include "slotkeeper.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: slotkeeper
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The name of the objects of the node cache's agent. */}}
{{- define "slotkeeper.nodeCacheName" -}}
{{ include "slotkeeper.fullname" . }}-node-cache
{{- end }}

{{- define "slotkeeper.nodeCacheLabels" -}}
{{ include "slotkeeper.labels" . | replace "app.kubernetes.io/component: operator" "app.kubernetes.io/component: node-cache" }}
{{- end }}

{{/* An image reference: (list REGISTRY IMAGE DEFAULT_TAG). */}}
{{- define "slotkeeper.image" -}}
{{- $image := index . 1 }}
{{- with index . 0 }}{{ . }}/{{ end }}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 2) }}
{{- end }}
{{- end }}
