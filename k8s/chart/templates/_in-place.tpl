{{/*
What an upgrade cannot change in place, refused before it changes anything. What runs is looked up: `helm template` sees
nothing of it, and a rollback renders nothing; there the API server refuses the Secrets of files/ whose type changes.
*/}}

{{/* Workers of one pod and groups of pods have one name: (list root role grouped remedy). */}}
{{- define "glm47.sameKind" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s-%s" (include "glm47.fullname" $root) (index . 1) -}}
{{- with lookup "apps/v1" "StatefulSet" $root.Release.Namespace $name -}}
  {{- $grouped := false -}}
  {{- range .metadata.ownerReferences -}}
    {{- if eq .kind "LeaderWorkerSet" -}}{{- $grouped = true -}}{{- end -}}
  {{- end -}}
  {{- if ne $grouped (index $ 2) -}}
    {{- fail (printf "cannot change the workers of %s in place: %s" $name (index $ 3)) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* The number of nodes of a ComputeDomain is fixed: (list root nodes). */}}
{{- define "glm47.sameDomain" -}}
{{- $root := index . 0 -}}
{{- $name := include "glm47.fullname" $root -}}
{{- if $root.Capabilities.APIVersions.Has "resource.nvidia.com/v1beta1/ComputeDomain" -}}
  {{- with lookup "resource.nvidia.com/v1beta1" "ComputeDomain" $root.Release.Namespace $name -}}
    {{- if ne (int .spec.numNodes) (index $ 1) -}}
      {{- fail (printf "cannot change the nodes of ComputeDomain %s from %d to %d: first: kubectl delete leaderworkerset,computedomain,statefulset,secret -l 'app.kubernetes.io/instance=%s,app.kubernetes.io/component in (prefill,decode,nvlink-domain)'" $name (int .spec.numNodes) (index $ 1) $root.Release.Name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}
