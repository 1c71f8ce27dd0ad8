{{- define "cairn.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "cairn.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "cairn.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "cairn.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cairn.selector" -}}
app.kubernetes.io/name: {{ include "cairn.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cairn.labels" -}}
{{ include "cairn.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "cairn.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "cairn.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "cairn.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Secret with the keys of the bucket; empty when the cloud's own chain is used. */}}
{{- define "cairn.objectsSecret" -}}
{{- if .Values.embedded.minio.enabled -}}
{{- default (printf "%s-minio" (include "cairn.fullname" .)) .Values.embedded.minio.existingSecret -}}
{{- else -}}
{{- .Values.secrets.objects.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* Addresses of the members of an embedded store: (dict "root" $ "store" "nats" "replicas" 3 "scheme" "http://" "port" 8222) -> JSON list. */}}
{{- define "cairn.members" -}}
{{- $full := include "cairn.fullname" .root -}}
{{- $members := list -}}
{{- range $i := until (int .replicas) -}}
{{- $members = append $members (printf "%s%s-%s-%d.%s-%s:%d" $.scheme $full $.store $i $full $.store (int $.port)) -}}
{{- end -}}
{{- toJson $members -}}
{{- end -}}

{{/* Settings of encryption for files of a mounted Secret: (dict "path" "/etc/x" "certificate" true) -> JSON. */}}
{{- define "cairn.tlsFiles" -}}
{{- $files := dict "caFile" (printf "%s/ca.crt" .path) -}}
{{- if .certificate -}}
{{- $files = merge $files (dict "certFile" (printf "%s/tls.crt" .path) "keyFile" (printf "%s/tls.key" .path)) -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{/* The configuration of the servers: what the chart sets, then what the user says. */}}
{{- define "cairn.config" -}}
{{- $embedded := .Values.embedded -}}
{{- $base := dict
  "dataDir" "/data"
  "proxy" (dict "host" "0.0.0.0" "port" 19530)
  "http" (dict "host" "0.0.0.0" "port" 9091)
  "node" (dict "host" "0.0.0.0" "port" 9090)
  "meta" (dict "kind" "etcd" "etcd" (dict))
  "wal" (dict "kind" "jetstream" "nats" (dict))
  "objects" (dict "kind" "s3" "s3" (dict)) -}}
{{- if $embedded.etcd.enabled -}}
{{- $_ := set $base.meta.etcd "endpoints" (include "cairn.members" (dict "root" . "store" "etcd" "replicas" $embedded.etcd.replicas "scheme" "" "port" 2379) | fromJsonArray) -}}
{{- end -}}
{{- if $embedded.nats.enabled -}}
{{- $_ := set $base.wal.nats "servers" (include "cairn.members" (dict "root" . "store" "nats" "replicas" $embedded.nats.replicas "scheme" "" "port" 4222) | fromJsonArray) -}}
{{- $_ := set $base.wal.nats "monitors" (include "cairn.members" (dict "root" . "store" "nats" "replicas" $embedded.nats.replicas "scheme" "http://" "port" 8222) | fromJsonArray) -}}
{{- $_ := set $base.wal.nats "replicas" (int $embedded.nats.replicas) -}}
{{- end -}}
{{- if $embedded.minio.enabled -}}
{{- $_ := set $base.objects.s3 "endpoint" (printf "http://%s-minio:9000" (include "cairn.fullname" .)) -}}
{{- end -}}
{{- with .Values.secrets.etcd.tlsSecret -}}
{{- $_ := set $base.meta.etcd "tls" (include "cairn.tlsFiles" (dict "path" "/etc/cairn-tls/etcd" "certificate" $.Values.secrets.etcd.clientCertificate) | fromJson) -}}
{{- end -}}
{{- with .Values.secrets.nats.tlsSecret -}}
{{- $_ := set $base.wal.nats "tls" (include "cairn.tlsFiles" (dict "path" "/etc/cairn-tls/nats" "certificate" $.Values.secrets.nats.clientCertificate) | fromJson) -}}
{{- end -}}
{{- with .Values.secrets.nats.credentialsSecret -}}
{{- $_ := set $base.wal.nats "credentialsFile" (printf "/etc/cairn-tls/nats-credentials/%s" $.Values.secrets.nats.credentialsKey) -}}
{{- end -}}
{{- $config := mergeOverwrite $base (deepCopy .Values.config) -}}
{{- if and (not $embedded.etcd.enabled) (not $config.meta.etcd.endpoints) -}}
{{- fail "no metadata store: set config.meta.etcd.endpoints to those of your etcd, or embedded.etcd.enabled=true for a trial" -}}
{{- end -}}
{{- if and (not $embedded.nats.enabled) (not $config.wal.nats.servers) -}}
{{- fail "no write-ahead log: set config.wal.nats.servers to those of your NATS with JetStream, or embedded.nats.enabled=true for a trial" -}}
{{- end -}}
{{- if and (not $embedded.minio.enabled) (not $config.objects.s3.bucket) -}}
{{- fail "no object store: set config.objects.s3.bucket (and endpoint, unless it is AWS), or embedded.minio.enabled=true for a trial" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "cairn.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.securityContext.runAsUser }}
runAsGroup: {{ .Values.securityContext.runAsGroup }}
fsGroup: {{ .Values.securityContext.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "cairn.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "cairn.spread" -}}
{{- if .root.Values.topologySpread.enabled }}
topologySpreadConstraints:
{{- range .root.Values.topologySpread.topologyKeys }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable }}
  labelSelector:
    matchLabels:
      {{- include "cairn.selector" $.root | nindent 6 }}
      app.kubernetes.io/component: {{ $.role }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "cairn.nodeLoss" -}}
- { key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: {{ .Values.nodeLossTolerationSeconds }} }
- { key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: {{ .Values.nodeLossTolerationSeconds }} }
{{- end -}}

{{/* Pod of a role: (dict "root" $ "role" "streaming"). */}}
{{- define "cairn.pod" -}}
{{- $root := .root -}}
{{- $role := .role -}}
{{- $values := index $root.Values $role -}}
metadata:
  labels:
    {{- include "cairn.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $role }}
  annotations:
    checksum/config: {{ include "cairn.config" $root | sha256sum }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "cairn.serviceAccount" $root }}
  automountServiceAccountToken: false
  # Variables that Kubernetes makes for services (CAIRN_PROXY_PORT=tcp://...) would be read as settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- include "cairn.podSecurity" $root | nindent 4 }}
  {{- include "cairn.spread" . | nindent 2 }}
  tolerations:
    {{- include "cairn.nodeLoss" $root | nindent 4 }}
    {{- with $values.tolerations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
  - name: {{ $role }}
    image: {{ include "cairn.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: [server, {{ $role }}, --config, /etc/cairn/cairn.yaml]
    env:
    - { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
    - { name: POD_IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
    - { name: CAIRN_NODE_ID, value: $(POD_NAME) }
    - { name: CAIRN_NODE_ADVERTISE_HOST, value: $(POD_IP) }
    {{- with include "cairn.objectsSecret" $root }}
    - name: CAIRN_OBJECTS_S3_ACCESS_KEY_ID
      valueFrom: { secretKeyRef: { name: {{ . }}, key: {{ $root.Values.secrets.objects.accessKeyIdKey }} } }
    - name: CAIRN_OBJECTS_S3_SECRET_ACCESS_KEY
      valueFrom: { secretKeyRef: { name: {{ . }}, key: {{ $root.Values.secrets.objects.secretAccessKeyKey }} } }
    {{- end }}
    {{- with $root.Values.secrets.etcd }}
    {{- if .existingSecret }}
    - name: CAIRN_META_ETCD_USERNAME
      valueFrom: { secretKeyRef: { name: {{ .existingSecret }}, key: {{ .usernameKey }} } }
    - name: CAIRN_META_ETCD_PASSWORD
      valueFrom: { secretKeyRef: { name: {{ .existingSecret }}, key: {{ .passwordKey }} } }
    {{- end }}
    {{- end }}
    {{- with $root.Values.secrets.nats }}
    {{- if .existingSecret }}
    - name: CAIRN_WAL_NATS_USERNAME
      valueFrom: { secretKeyRef: { name: {{ .existingSecret }}, key: {{ .usernameKey }} } }
    - name: CAIRN_WAL_NATS_PASSWORD
      valueFrom: { secretKeyRef: { name: {{ .existingSecret }}, key: {{ .passwordKey }} } }
    {{- end }}
    {{- end }}
    {{- with $values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    ports:
    {{- if eq $role "proxy" }}
    - { name: milvus, containerPort: 19530 }
    {{- else }}
    - { name: rpc, containerPort: 9090 }
    {{- end }}
    - { name: http, containerPort: 9091 }
    # Started: everything of the process runs. It waits for its stores meanwhile, so five minutes are allowed.
    startupProbe:
      httpGet: { path: /healthz, port: http }
      periodSeconds: 1
      timeoutSeconds: 2
      failureThreshold: 300
    # Ready: it can serve. A proxy needs a leading coordinator and an owner for every channel.
    readinessProbe:
      httpGet: { path: /readyz, port: http }
      periodSeconds: 1
      timeoutSeconds: 3
      failureThreshold: 4
    # Live: the process answers at all. It says nothing of what it depends on: a restart would not heal that.
    livenessProbe:
      httpGet: { path: /healthz, port: http }
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    {{- if gt (int $values.preStopSeconds) 0 }}
    lifecycle:
      preStop:
        exec: { command: [/app/bin/node, -e, "setTimeout(() => {}, {{ mul (int $values.preStopSeconds) 1000 }})"] }
    {{- end }}
    resources:
      {{- toYaml $values.resources | nindent 6 }}
    securityContext:
      {{- include "cairn.containerSecurity" $root | nindent 6 }}
    volumeMounts:
    - { name: config, mountPath: /etc/cairn, readOnly: true }
    - { name: data, mountPath: /data }
    {{- if $root.Values.secrets.etcd.tlsSecret }}
    - { name: etcd-tls, mountPath: /etc/cairn-tls/etcd, readOnly: true }
    {{- end }}
    {{- if $root.Values.secrets.nats.tlsSecret }}
    - { name: nats-tls, mountPath: /etc/cairn-tls/nats, readOnly: true }
    {{- end }}
    {{- if $root.Values.secrets.nats.credentialsSecret }}
    - { name: nats-credentials, mountPath: /etc/cairn-tls/nats-credentials, readOnly: true }
    {{- end }}
    - { name: tmp, mountPath: /tmp }
  volumes:
  - name: config
    configMap: { name: {{ include "cairn.fullname" $root }} }
  - name: tmp
    emptyDir: { sizeLimit: 1Gi }
  {{- range $name, $secret := dict "etcd-tls" $root.Values.secrets.etcd.tlsSecret "nats-tls" $root.Values.secrets.nats.tlsSecret "nats-credentials" $root.Values.secrets.nats.credentialsSecret }}
  {{- if $secret }}
  - name: {{ $name }}
    secret: { secretName: {{ $secret }}, defaultMode: 0440 }
  {{- end }}
  {{- end }}
  {{- if $values.scratch }}
  {{- if not $values.scratch.persistence.enabled }}
  - name: data
    emptyDir: { sizeLimit: {{ $values.scratch.sizeLimit }} }
  {{- end }}
  {{- else }}
  - name: data
    emptyDir: { sizeLimit: 1Gi }
  {{- end }}
{{- end -}}

{{- define "cairn.meta" -}}
name: {{ include "cairn.fullname" .root }}-{{ .role }}
labels:
  {{- include "cairn.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .role }}
{{- end -}}
