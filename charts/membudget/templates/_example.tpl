{{/* The containers and volumes that reader and writer of the example have alike. */}}

{{/* Beside the engine, started before it and ended after it. */}}
{{- define "membudget.exampleSidecar" -}}
{{- with .Values.example -}}
- name: membudget
  # A native sidecar: started before the engine, ended after it.
  restartPolicy: Always
  image: {{ include "membudget.image" (list $ .sidecarRepository .tag) }}
  imagePullPolicy: {{ $.Values.images.pullPolicy }}
  args: [--run=/run/membudget, --state=/var/lib/membudget/sidecar, --keys=/etc/membudget/keys, --host=0.0.0.0]
  env:
  - name: MEMBUDGET_POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  - name: MEMBUDGET_POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: MEMBUDGET_POD_UID
    valueFrom: {fieldRef: {fieldPath: metadata.uid}}
  ports:
  - {name: membudget, containerPort: 9465}
  livenessProbe:
    httpGet: {path: /healthz, port: membudget}
    periodSeconds: 20
    timeoutSeconds: 5
  resources:
    requests: {cpu: 10m, memory: {{ .sidecarMemoryLimit }}}
    limits: {memory: {{ .sidecarMemoryLimit }}}
  securityContext: {{- include "membudget.containerSecurity" $ | nindent 4 }}
  volumeMounts:
  - {name: run, mountPath: /run/membudget}
  - {name: sidecar-state, mountPath: /var/lib/membudget/sidecar}
  - {name: keys, mountPath: /etc/membudget/keys, readOnly: true}
{{- end }}
{{- end }}

{{/* Of a list: the root, a name, arguments, the memory limit. Run to its end before the engine starts. */}}
{{- define "membudget.exampleStep" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.example -}}
- name: {{ index $ 1 }}
  image: {{ include "membudget.image" (list $root .repository .tag) }}
  imagePullPolicy: {{ $root.Values.images.pullPolicy }}
  args: {{- toYaml (index $ 2) | nindent 2 }}
  resources:
    requests: {cpu: 100m, memory: {{ index $ 3 }}}
    limits: {memory: {{ index $ 3 }}}
  securityContext: {{- include "membudget.containerSecurity" $root | nindent 4 }}
  volumeMounts:
  - {name: data, mountPath: /var/lib/membudget/data}
  - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end }}

{{/* Of a list: the root, more arguments, the memory limit, whether it only reads its data. */}}
{{- define "membudget.exampleEngine" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.example -}}
- name: engine
  image: {{ include "membudget.image" (list $root .repository .tag) }}
  imagePullPolicy: {{ $root.Values.images.pullPolicy }}
  args:
  - serve
  - --data=/var/lib/membudget/data
  - --state=/var/lib/membudget/engine
  - --run=/run/membudget
  - --host=0.0.0.0
  # What the pod's grace period leaves after the pause before the signal.
  - --grace=25
  {{- range index $ 1 }}
  - {{ . }}
  {{- end }}
  ports:
  - {name: http, containerPort: 8080}
  lifecycle:
    # Until every node has heard that the pod is no longer ready, queries still come.
    preStop: {exec: {command: [sleep, "5"]}}
  startupProbe:
    httpGet: {path: /readyz, port: http}
    periodSeconds: 1
    failureThreshold: 120
  livenessProbe:
    httpGet: {path: /healthz, port: http}
    periodSeconds: 20
    timeoutSeconds: 5
  readinessProbe:
    httpGet: {path: /readyz, port: http}
    periodSeconds: 5
  resources:
    requests: {cpu: 100m, memory: {{ index $ 2 }}}
    limits: {memory: {{ index $ 2 }}}
  securityContext: {{- include "membudget.containerSecurity" $root | nindent 4 }}
  volumeMounts:
  - {name: run, mountPath: /run/membudget}
  - {name: data, mountPath: /var/lib/membudget/data{{ if index $ 3 }}, readOnly: true{{ end }}}
  - {name: engine-state, mountPath: /var/lib/membudget/engine}
  - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end }}

{{/* All but the data's and the engine's state. */}}
{{- define "membudget.exampleVolumes" -}}
# On disk, all of them: in memory they would count against the limit that they help to keep.
- {name: run, emptyDir: {}}
- {name: sidecar-state, emptyDir: {sizeLimit: 128Mi}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
- name: keys
  # The controller publishes it; until then the pod has its built-in profile.
  configMap: {name: membudget-keys, optional: true}
{{- end }}

{{/* Of a list: the root, the name of reader or writer. */}}
{{- define "membudget.examplePolicy" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.example -}}
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata:
  name: {{ index $ 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "membudget.labels" $root | nindent 4 }}
  annotations:
    # The first install brings the kind along, and what is of an unknown kind can only come after it. The next upgrade
    # takes the policy into the release.
    {{- if not ($root.Capabilities.APIVersions.Has "membudget.dev/v1alpha1/MemoryPolicy") }}
    helm.sh/hook: post-install
    {{- end }}
    # Also a rollback to that first revision, which does not know it, leaves it.
    helm.sh/resource-policy: keep
    meta.helm.sh/release-name: {{ $root.Release.Name }}
    meta.helm.sh/release-namespace: {{ $root.Release.Namespace }}
spec: {{- merge (dict "selector" (dict "matchLabels" (dict "app" (index $ 1)))) .policy.spec | toYaml | nindent 2 }}
{{- end }}
{{- end }}
