{{/* Labels of everything. Call with (dict "root" $ "component" "failover-d"). */}}
{{- define "pelorus.labels" -}}
app.kubernetes.io/name: pelorus
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: pelorus
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Labels that select the pods of a component; they never change. */}}
{{- define "pelorus.selector" -}}
app.kubernetes.io/name: pelorus
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Name of an object: <release>-<component>. Names of a second release in another namespace do not meet this one's. */}}
{{- define "pelorus.name" -}}
{{ printf "%s-%s" .root.Release.Name .component | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of a ClusterRole: those have no namespace that would keep two releases apart. */}}
{{- define "pelorus.clusterName" -}}
{{ printf "%s:%s:%s" .root.Release.Namespace .root.Release.Name .component }}
{{- end }}

{{- define "pelorus.instanceImage" -}}
{{ .Values.instanceImage | default (printf "%s/instance-d:%s" .Values.image.registry .Values.image.tag) }}
{{- end }}

{{/* Address of NATS; empty when there is none. */}}
{{- define "pelorus.natsUrl" -}}
{{- if and .Values.nats.url .Values.nats.bundled.enabled }}
{{- fail "nats.url names a NATS of your own: set nats.bundled.enabled to false" }}
{{- end }}
{{- if .Values.nats.bundled.enabled -}}
tls://{{ include "pelorus.name" (dict "root" . "component" "nats") }}.{{ .Release.Namespace }}.svc:4222
{{- else -}}
{{ .Values.nats.url }}
{{- end -}}
{{- end }}

{{/* Secret with a daemon's user, password and ca.crt for NATS; empty when there is none. */}}
{{- define "pelorus.natsSecret" -}}
{{- if .root.Values.nats.bundled.enabled -}}
{{ include "pelorus.name" (dict "root" .root "component" (printf "nats-%s" .component)) }}
{{- else -}}
{{ get .root.Values.nats.secretNames .values }}
{{- end -}}
{{- end }}

{{/* Pods of a daemon. Call with (dict "root" $ "component" "failover-d" "values" "failoverD" "env" (list ...)), and with
"scratch" (dict "path" "/x" "size" "1Gi") for one that keeps files while it lives. */}}
{{- define "pelorus.deployment" -}}
{{- $root := .root -}}
{{- $values := get $root.Values .values -}}
{{- $url := include "pelorus.natsUrl" $root -}}
{{- $secret := include "pelorus.natsSecret" . -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "pelorus.name" . }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "pelorus.labels" . | nindent 4 }}
spec:
  replicas: {{ $values.replicas }}
  revisionHistoryLimit: 3
  selector:
    matchLabels: {{- include "pelorus.selector" . | nindent 6 }}
  strategy:
    type: RollingUpdate
    # A new pod is ready before an old one goes: there is never a moment without a daemon.
    rollingUpdate: { maxSurge: 1, maxUnavailable: 0 }
  template:
    metadata:
      labels:
        {{- include "pelorus.labels" . | nindent 8 }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        # A changed configuration makes new pods.
        checksum/config: {{ toJson $values.config | sha256sum }}
        {{- if and $url $root.Values.nats.bundled.enabled }}
        checksum/nats: {{ include "pelorus.natsChecksum" (dict "root" $root "component" .component) }}
        {{- end }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "pelorus.name" . }}
      automountServiceAccountToken: true
      # Service links would add variables that start with PELORUS_ (the Service of NATS has such a name), and the
      # daemons refuse settings that they do not know.
      enableServiceLinks: false
      terminationGracePeriodSeconds: 30
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile: { type: RuntimeDefault }
      # One on each node and in each zone as far as there are enough: losing a node leaves one awake.
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "pelorus.selector" . | nindent 14 }}
          # Counts the pods of one revision: otherwise a rolling update ends with two on one node.
          matchLabelKeys: [pod-template-hash]
        - maxSkew: 1
          topologyKey: topology.kubernetes.io/zone
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "pelorus.selector" . | nindent 14 }}
          matchLabelKeys: [pod-template-hash]
      {{- with $values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ $values.image | default (printf "%s/%s:%s" $root.Values.image.registry .component $root.Values.image.tag) | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          env:
            {{- with .env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
            {{- if $url }}
            - name: PELORUS_NATS_URL
              value: {{ $url | quote }}
            {{- if $secret }}
            - name: PELORUS_NATS_CA_FILE
              value: /etc/pelorus-nats/ca.crt
            - name: PELORUS_NATS_USER_FILE
              value: /etc/pelorus-nats/user
            - name: PELORUS_NATS_PASSWORD_FILE
              value: /etc/pelorus-nats/password
            {{- end }}
            {{- end }}
            {{- with $root.Values.log }}
            - name: PELORUS_LOG
              value: {{ . | quote }}
            {{- end }}
            - name: POD_NAME
              valueFrom: { fieldRef: { fieldPath: metadata.name } }
            - name: POD_NAMESPACE
              valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
          ports:
            - name: http
              containerPort: 8080
          livenessProbe:
            httpGet: { path: /livez, port: http }
            initialDelaySeconds: 10
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: { path: /readyz, port: http }
            periodSeconds: 2
            timeoutSeconds: 2
          resources: {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: { drop: [ALL] }
          volumeMounts:
            - name: config
              mountPath: /etc/pelorus
              readOnly: true
            {{- if and $url $secret }}
            - name: nats
              mountPath: /etc/pelorus-nats
              readOnly: true
            {{- end }}
            {{- with .scratch }}
            - name: scratch
              mountPath: {{ .path }}
            {{- end }}
      volumes:
        - name: config
          configMap:
            name: {{ include "pelorus.name" . }}
        {{- if and $url $secret }}
        - name: nats
          secret:
            secretName: {{ $secret }}
            defaultMode: 0440
            # Without the Secret the daemon works on, without events.
            optional: true
        {{- end }}
        {{- with .scratch }}
        - name: scratch
          emptyDir: { sizeLimit: {{ .size }} }
        {{- end }}
{{- end }}

{{/* What surrounds a daemon's Deployment: account, configuration, budget, Service. Same arguments. */}}
{{- define "pelorus.surroundings" -}}
{{- $root := .root -}}
{{- $values := get $root.Values .values -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "pelorus.name" . }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "pelorus.labels" . | nindent 4 }}
# Pods say themselves that they want the token.
automountServiceAccountToken: false
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "pelorus.name" . }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "pelorus.labels" . | nindent 4 }}
data:
  {{ .component }}.json: |
    {{ toJson $values.config }}
{{- if $values.podDisruptionBudget }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "pelorus.name" . }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "pelorus.labels" . | nindent 4 }}
spec:
  # With a single replica a drain may take it: the daemon is needed for changes, not for serving.
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "pelorus.selector" . | nindent 6 }}
{{- end }}
{{- if $values.service }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "pelorus.name" . }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "pelorus.labels" . | nindent 4 }}
  annotations:
    prometheus.io/scrape: "true"
    prometheus.io/port: "8080"
    prometheus.io/path: /metrics
spec:
  selector: {{- include "pelorus.selector" . | nindent 4 }}
  # Each pod is scraped by itself.
  clusterIP: None
  ports:
    - name: http
      port: 8080
      targetPort: http
{{- end }}
{{- end }}

{{/* Binds a ClusterRole of this release to a daemon's account. Same arguments. */}}
{{- define "pelorus.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ include "pelorus.clusterName" . }}
  labels: {{- include "pelorus.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ include "pelorus.clusterName" . }}
subjects:
  - kind: ServiceAccount
    name: {{ include "pelorus.name" . }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* What a daemon needs for its Lease, of which one replica works; or for those of its members, `seats` of them. Same arguments. */}}
{{- define "pelorus.leaseRole" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ include "pelorus.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pelorus.labels" . | nindent 4 }}
rules:
  # common::lease: who of the replicas works, or who all work. The API server cannot hold `create` to a name.
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [create]
  # common::lease: the same are held and renewed.
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    {{- if .seats }}
    resourceNames:
      {{- range until (int .seats) }}
      - {{ include "pelorus.name" $ }}-{{ . }}
      {{- end }}
    {{- else }}
    resourceNames: [{{ include "pelorus.name" . }}]
    {{- end }}
    verbs: [get, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "pelorus.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pelorus.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ include "pelorus.name" . }}
subjects:
  - kind: ServiceAccount
    name: {{ include "pelorus.name" . }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}
