{{/*
The autoscalers of prefill and decode, whose own number of workers is taken away: upgrades then leave the autoscaler's
alone. (list root objects settings), JSON of objects by kind and name.
*/}}
{{- define "glm47.scalers" -}}
{{- $root := index . 0 -}}
{{- $objects := index . 1 -}}
{{- $namespace := default "dynamo" (index (index . 2) "GLM47_NAMESPACE") -}}
{{- $values := $root.Values -}}
{{- $scalers := include "glm47.file" (list $root $values.autoscaling.by) | fromJson -}}
{{- range $key, $scaler := $scalers -}}
  {{- $role := index (splitList "/" $key) 1 -}}
  {{- $own := index $values $role -}}
  {{- $least := int $own.autoscaling.minReplicas -}}
  {{- $most := int $own.autoscaling.maxReplicas -}}
  {{- if gt $least $most -}}
    {{- fail (printf "cannot scale %s: minReplicas %d is more than maxReplicas %d: set %s.autoscaling" $role $least $most $role) -}}
  {{- end -}}
  {{- $target := index $objects (printf "%s/%s" (ternary "LeaderWorkerSet" "StatefulSet" (gt (int $own.nodes) 1)) $role) -}}
  {{- $_ := unset $target.spec "replicas" -}}
  {{- $_ := set $scaler.spec "scaleTargetRef" (dict "apiVersion" $target.apiVersion "kind" $target.kind "name" $target.metadata.name) -}}
  {{- $goal := toString (int $own.autoscaling.inFlight) -}}
  {{- if eq $values.autoscaling.by "hpa" -}}
    {{- $_ := set $scaler.spec "minReplicas" $least -}}
    {{- $_ := set $scaler.spec "maxReplicas" $most -}}
    {{- $_ := set (index $scaler.spec.metrics 0).pods.target "averageValue" $goal -}}
  {{- else -}}
    {{- $_ := set $scaler.spec "minReplicaCount" $least -}}
    {{- $_ := set $scaler.spec "maxReplicaCount" $most -}}
    {{- $asked := (index $scaler.spec.triggers 0).metadata -}}
    {{- $query := $asked.query | replace "{namespace=\"default\"" (printf "{namespace=%q" $root.Release.Namespace) -}}
    {{- $_ := set $asked "query" ($query | replace "dynamo_namespace=\"dynamo\"" (printf "dynamo_namespace=%q" $namespace)) -}}
    {{- $_ := set $asked "serverAddress" $values.autoscaling.prometheus -}}
    {{- $_ := set $asked "threshold" $goal -}}
    {{- with $values.autoscaling.authModes -}}
      {{- $_ := set $asked "authModes" . -}}
      {{- $_ := set (index $scaler.spec.triggers 0) "authenticationRef" (dict "name" (printf "%s-prometheus" (include "glm47.fullname" $root))) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if $values.autoscaling.authModes -}}
  {{- $more := include "glm47.file" (list $root "keda-auth") | fromJson -}}
  {{- range (index $more "TriggerAuthentication/prometheus").spec.secretTargetRef -}}
    {{- $_ := set . "name" $values.autoscaling.authSecret -}}
  {{- end -}}
  {{- $scalers = merge $scalers $more -}}
{{- end -}}
{{- toJson $scalers -}}
{{- end -}}
