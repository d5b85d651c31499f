{{/* Labels, images, security contexts: what several templates say alike. */}}
{{- define "membudget.labels" -}}
app.kubernetes.io/name: membudget
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Of a list: the root, more labels; ours win. */}}
{{- define "membudget.labelsWith" -}}
{{- merge (include "membudget.labels" (index . 0) | fromYaml) (index . 1) | toYaml }}
{{- end }}

{{- define "membudget.controllerSelector" -}}
app.kubernetes.io/name: membudget
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{/* Of a list: the root, a repository, a tag that may be empty. */}}
{{- define "membudget.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.images.registry }}{{ . }}/{{ end }}{{ index . 1 }}:{{ default $root.Chart.AppVersion (index . 2) }}
{{- end }}

{{- define "membudget.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "membudget.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Of the path of a file: its name without ending, with ours in front of it once. */}}
{{- define "membudget.fromFile" -}}
{{- printf "membudget-%s" (base . | trimSuffix (ext .)) | replace "membudget-membudget" "membudget" }}
{{- end }}
