{{/* Selector of an embedded store, apart from that of the servers. */}}
{{- define "cairn.storeSelector" -}}
app.kubernetes.io/name: {{ include "cairn.name" .root }}-{{ .store }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "cairn.storeMeta" -}}
name: {{ include "cairn.fullname" .root }}-{{ .store }}
labels:
  {{- include "cairn.storeSelector" . | nindent 2 }}
  app.kubernetes.io/component: {{ .store }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What the pods of every embedded store share: (dict "root" $ "store" "nats"). */}}
{{- define "cairn.storePod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 30
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "cairn.podSecurity" .root | nindent 2 }}
tolerations:
  {{- include "cairn.nodeLoss" .root | nindent 2 }}
{{- with (index .root.Values.embedded .store).nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "cairn.storeSelector" . | nindent 12 }}
{{- end -}}

{{/* Head of a store's StatefulSet. */}}
{{- define "cairn.storeSet" -}}
{{- $values := index .root.Values.embedded .store -}}
replicas: {{ $values.replicas }}
serviceName: {{ include "cairn.fullname" .root }}-{{ .store }}
podManagementPolicy: Parallel
selector:
  matchLabels:
    {{- include "cairn.storeSelector" . | nindent 4 }}
volumeClaimTemplates:
- metadata: { name: data }
  spec:
    accessModes: [ReadWriteOnce]
    {{- with $values.storage.storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
    resources: { requests: { storage: {{ $values.storage.size }} } }
{{- end -}}

{{/* Headless service, and a disruption budget where there is a majority to keep. */}}
{{- define "cairn.storeService" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "cairn.storeMeta" . | nindent 2 }}
spec:
  clusterIP: None
  # Members must find each other before they are ready.
  publishNotReadyAddresses: true
  selector:
    {{- include "cairn.storeSelector" . | nindent 4 }}
  ports:
  {{- range $name, $port := .ports }}
  - { name: {{ $name }}, port: {{ $port }} }
  {{- end }}
{{- if gt (int (index .root.Values.embedded .store).replicas) 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "cairn.storeMeta" . | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "cairn.storeSelector" . | nindent 6 }}
{{- end }}
{{- end -}}
