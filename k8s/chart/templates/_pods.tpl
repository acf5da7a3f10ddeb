{{/* A pod template with everything that values say of its role: (list root role template), changed in place. */}}
{{- define "glm47.pod" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $pod := index . 2 -}}
{{- $values := $root.Values -}}
{{- $worker := has $role (list "prefill" "decode" "single") -}}
{{- $several := has $role (list "prefill" "decode") -}}
{{- $client := has $role (list "frontend" "prefill" "decode" "single") -}}
{{- $own := $values.servers -}}
{{- if $client -}}{{- $own = index $values $role -}}{{- end -}}

{{- if and $several $values.nvlinkDomain (not $values.mocker) -}}
  {{- include "glm47.merge" (list $pod (include "glm47.file" (list $root "patch-nvlink-domain") | fromJson)) -}}
{{- end -}}
{{- if and $several $values.rdma (not $values.mocker) -}}
  {{- include "glm47.merge" (list $pod (include "glm47.file" (list $root "patch-rdma") | fromJson)) -}}
{{- end -}}
{{- if and $client $values.externalServers.enabled (ne $role "single") -}}
  {{- $patch := include "glm47.file" (list $root "patch-external-servers") | replace "glm47-servers" $values.externalServers.secret -}}
  {{- include "glm47.merge" (list $pod (fromJson $patch)) -}}
{{- end -}}
{{- if and $values.servers.etcdTls (has $role (list "etcd" "frontend" "prefill" "decode")) -}}
  {{- include "glm47.merge" (list $pod (include "glm47.file" (list $root "patch-etcd-tls") | fromJson)) -}}
{{- end -}}
{{- range $option, $patch := dict "natsAuth" "patch-nats-auth" "natsTls" "patch-nats-tls" -}}
  {{- if and (index $values.servers $option) (has $role (list "nats" "frontend" "prefill" "decode")) -}}
    {{- include "glm47.merge" (list $pod (include "glm47.file" (list $root $patch) | fromJson)) -}}
  {{- end -}}
{{- end -}}
{{- if and $client $values.kubernetesDiscovery -}}
  {{- include "glm47.merge" (list $pod (include "glm47.file" (list $root "patch-kubernetes-discovery") | fromJson)) -}}
{{- end -}}
{{- /* After the one above: a pod has one account, and that of events may then do both. */ -}}
{{- if $values.events -}}
  {{- include "glm47.merge" (list $pod (include "glm47.file" (list $root "patch-events") | fromJson)) -}}
{{- end -}}
{{- if $values.statusToken.enabled -}}
  {{- $patch := include "glm47.file" (list $root "patch-status-token") | replace "\"glm47-status\"" (quote $values.statusToken.secret) -}}
  {{- include "glm47.merge" (list $pod (fromJson $patch)) -}}
{{- end -}}
{{- if $worker -}}
  {{- $gpus := toString (int $own.gpus) -}}
  {{- $container := dict "name" "runner" "env" (list (dict "name" "GLM47_GPUS_PER_NODE" "value" $gpus)) "resources" (dict "limits" (dict "nvidia.com/gpu" $gpus)) -}}
  {{- include "glm47.merge" (list $pod.spec (dict "containers" (list $container))) -}}
{{- end -}}
{{- $variables := list -}}
{{- if $client -}}
  {{- range $name, $value := $values.env -}}
    {{- $variables = append $variables (dict "name" $name "value" (toString $value)) -}}
  {{- end -}}
  {{- /* A pod's own variables win over the ConfigMap's: settings that it has, or all where there is none. */ -}}
  {{- $there := dict -}}
  {{- range (index $pod.spec.containers 0).env -}}{{- $_ := set $there .name true -}}{{- end -}}
  {{- range $name, $value := $values.settings -}}
    {{- if or (eq $role "single") (hasKey $there $name) -}}
      {{- $variables = append $variables (dict "name" $name "value" (toString $value)) -}}
    {{- end -}}
  {{- end -}}
  {{- with index $values.settings "GLM47_STOP_TIMEOUT" -}}
    {{- $_ := set $pod.spec "terminationGracePeriodSeconds" (add 15 (ceil (float64 .))) -}}
  {{- end -}}
{{- end -}}
{{- $image := include "glm47.image" $root -}}
{{- if and (not $client) $own.image -}}{{- $image = $own.image -}}{{- end -}}
{{- $container := dict "name" "runner" "image" $image "env" $variables "resources" $own.resources -}}
{{- with $values.image.pullPolicy -}}{{- $_ := set $container "imagePullPolicy" . -}}{{- end -}}
{{- $spec := dict "containers" (list $container) -}}
{{- with $values.imagePullSecrets -}}{{- $_ := set $spec "imagePullSecrets" . -}}{{- end -}}
{{- with $values.pods.priorityClassName -}}{{- $_ := set $spec "priorityClassName" . -}}{{- end -}}
{{- with $values.pods.nodeSelector -}}{{- $_ := set $spec "nodeSelector" . -}}{{- end -}}
{{- include "glm47.merge" (list $pod.spec $spec) -}}
{{- if and $client $values.mocker -}}
  {{- include "glm47.merge" (list $pod (include "glm47.file" (list $root "patch-mocker-model") | fromJson)) -}}
  {{- if $worker -}}
    {{- include "glm47.merge" (list $pod (include "glm47.file" (list $root "patch-mocker-worker") | fromJson)) -}}
  {{- end -}}
{{- end -}}
{{- with $values.pods.tolerations -}}
  {{- $_ := set $pod.spec "tolerations" (concat (default list (index $pod.spec "tolerations")) .) -}}
{{- end -}}
{{- range $volume := $pod.spec.volumes -}}
  {{- if eq $volume.name "model" -}}{{- $_ := set $volume.persistentVolumeClaim "claimName" $values.model.claim -}}{{- end -}}
{{- end -}}
{{- include "glm47.merge" (list $pod.spec $own.podPatch) -}}
{{- $metadata := dict "labels" $values.pods.labels -}}
{{- with $values.pods.annotations -}}{{- $_ := set $metadata "annotations" . -}}{{- end -}}
{{- include "glm47.merge" (list $pod.metadata $metadata) -}}
{{- end -}}
