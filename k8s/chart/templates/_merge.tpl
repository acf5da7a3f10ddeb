{{/*
Merges a patch into an object, in place: (list object patch). Lists of things with names merge by them, as
kustomize's do; null takes a field away, `$patch: delete` an element.
*/}}
{{- define "glm47.merge" -}}
{{- $base := index . 0 -}}
{{- $names := dict "containers" "name" "env" "name" "volumes" "name" "volumeMounts" "mountPath" "claims" "name" "resourceClaims" "name" "imagePullSecrets" "name" "initContainers" "name" -}}
{{- range $key, $value := index . 1 -}}
  {{- if kindIs "invalid" $value -}}
    {{- $_ := unset $base $key -}}
  {{- else if kindIs "map" $value -}}
    {{- if not (kindIs "map" (index $base $key)) -}}{{- $_ := set $base $key dict -}}{{- end -}}
    {{- include "glm47.merge" (list (index $base $key) $value) -}}
  {{- else if and (kindIs "slice" $value) (hasKey $names $key) -}}
    {{- $_ := set $base $key (include "glm47.mergeList" (list (default list (index $base $key)) $value (index $names $key)) | fromJsonArray) -}}
  {{- else -}}
    {{- $_ := set $base $key $value -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "glm47.mergeList" -}}
{{- $name := index . 2 -}}
{{- $merged := list -}}
{{- $seen := dict -}}
{{- $patches := dict -}}
{{- range index . 1 -}}{{- $_ := set $patches (toString (index . $name)) . -}}{{- end -}}
{{- range $old := index . 0 -}}
  {{- $key := toString (index $old $name) -}}
  {{- $_ := set $seen $key true -}}
  {{- $patch := index $patches $key -}}
  {{- if not $patch -}}
    {{- $merged = append $merged $old -}}
  {{- else if ne (default "" (index $patch "$patch")) "delete" -}}
    {{- $copy := deepCopy $old -}}
    {{- include "glm47.merge" (list $copy $patch) -}}
    {{- $merged = append $merged $copy -}}
  {{- end -}}
{{- end -}}
{{- range index . 1 -}}
  {{- if and (not (hasKey $seen (toString (index . $name)))) (not (hasKey . "$patch")) -}}
    {{- $merged = append $merged . -}}
  {{- end -}}
{{- end -}}
{{- toJson $merged -}}
{{- end -}}
