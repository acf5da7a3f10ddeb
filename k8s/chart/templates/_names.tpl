{{/* The name that every object's begins with. */}}
{{- define "glm47.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "glm47" .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-glm47" .Release.Name -}}
{{- end -}}
{{- end -}}

{{- define "glm47.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* One of files/, with this release's names: (list root file), JSON. */}}
{{- define "glm47.file" -}}
{{- $root := index . 0 -}}
{{- $root.Files.Get (printf "files/%s.json" (index . 1)) | replace "xxreleasexx-glm47" (include "glm47.fullname" $root) | replace "xxreleasexx" $root.Release.Name -}}
{{- end -}}
