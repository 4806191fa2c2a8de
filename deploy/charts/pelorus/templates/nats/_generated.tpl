{{/*
Certificate and passwords of the bundled NATS: made once, then read back from the cluster. Kept in .Values for the rest
of the rendering, so that every template sees the same ones. The passwords are in Secrets only.
*/}}
{{- define "pelorus.natsGenerate" -}}
{{- if not (hasKey .Values.nats "generated") -}}
{{- $name := include "pelorus.name" (dict "root" . "component" "nats") -}}
{{- $days := int .Values.nats.bundled.certificateDays -}}
{{- $generated := dict "users" dict -}}
{{- $tls := lookup "v1" "Secret" .Release.Namespace (printf "%s-tls" $name) | default dict -}}
{{- $until := dig "metadata" "annotations" "pelorus.dev/renew-after" "0" $tls | int64 -}}
{{- $now := now | unixEpoch | int64 -}}
{{- if and (hasKey (get $tls "data" | default dict) "tls.key") (gt $until $now) -}}
{{- range $key := list "tls.crt" "tls.key" "ca.crt" -}}
{{- $_ := set $generated $key (index $tls.data $key | b64dec) -}}
{{- end -}}
{{- $_ := set $generated "renewAfter" (toString $until) -}}
{{- else -}}
{{- $ca := genCA (printf "%s-ca" $name) $days -}}
{{- $hosts := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) "localhost" -}}
{{- $cert := genSignedCert $name (list "127.0.0.1") $hosts $days $ca -}}
{{- $_ := set $generated "tls.crt" $cert.Cert -}}
{{- $_ := set $generated "tls.key" $cert.Key -}}
{{- $_ := set $generated "ca.crt" $ca.Cert -}}
{{- $_ := set $generated "renewAfter" (add $now (mul $days 57600) | toString) -}}
{{- end -}}
{{- range $user := list "failover-d" "topology-ctl" "binlog-shipper" "backup-d" "reader" -}}
{{- $secret := lookup "v1" "Secret" $.Release.Namespace (printf "%s-%s" $name $user) | default dict -}}
{{- $kept := get (get $secret "data" | default dict) "password" | default "" -}}
{{- $_ := set $generated.users $user (ternary (b64dec $kept) (randAlphaNum 40) (ne $kept "")) -}}
{{- end -}}
{{- $_ := set .Values.nats "generated" $generated -}}
{{- end -}}
{{- end }}

{{/* Changes when what a pod reads from NATS' Secrets changes. */}}
{{- define "pelorus.natsChecksum" -}}
{{- include "pelorus.natsGenerate" .root -}}
{{- $generated := .root.Values.nats.generated -}}
{{- printf "%s %s" (index $generated "ca.crt") (get $generated.users .component) | sha256sum -}}
{{- end }}

{{/* Configuration of the server. Each user may publish what is its own and nothing else. */}}
{{- define "pelorus.natsConfig" -}}
{{- include "pelorus.natsGenerate" . -}}
{{- $generated := .Values.nats.generated -}}
server_name: {{ include "pelorus.name" (dict "root" . "component" "nats") }}
listen: "0.0.0.0:4222"
# Health for probes. Not in the Service.
http: "0.0.0.0:8222"
max_payload: 1MB

tls {
  cert_file: "/etc/nats/tls/tls.crt"
  key_file: "/etc/nats/tls/tls.key"
  timeout: 5
}

jetstream {
  store_dir: "/data"
  max_file_store: {{ .Values.nats.bundled.maxFileStore }}
  max_memory_store: {{ .Values.nats.bundled.maxMemoryStore }}
}

authorization {
  timeout: 5
  users: [
    {
      # What is written about roles and the state of instances.
      user: "failover-d"
      password: {{ get $generated.users "failover-d" | quote }}
      permissions {
        publish: [
          "pelorus.events.*.*.cluster.>", "pelorus.events.*.*.failover.>", "pelorus.events.*.*.switchover.>",
          "pelorus.events.*.*.instance.>", "pelorus.events.*.*.replication.>", "pelorus.events.*.*.storage.>",
          "$JS.API.INFO", "$JS.API.STREAM.INFO.PELORUS_EVENTS", "$JS.API.STREAM.CREATE.PELORUS_EVENTS",
          "$JS.API.STREAM.UPDATE.PELORUS_EVENTS"
        ]
        subscribe: ["_INBOX.>"]
      }
    }
    {
      # What is written about the objects of a cluster.
      user: "topology-ctl"
      password: {{ get $generated.users "topology-ctl" | quote }}
      permissions {
        publish: [
          "pelorus.events.*.*.cluster.>", "pelorus.events.*.*.instance.>", "pelorus.events.*.*.certificate.>",
          "pelorus.events.*.*.storage.>", "pelorus.events.*.*.config.>",
          "$JS.API.INFO", "$JS.API.STREAM.INFO.PELORUS_EVENTS", "$JS.API.STREAM.CREATE.PELORUS_EVENTS",
          "$JS.API.STREAM.UPDATE.PELORUS_EVENTS"
        ]
        subscribe: ["_INBOX.>"]
      }
    }
    {
      # What is written about the archive of binlogs.
      user: "binlog-shipper"
      password: {{ get $generated.users "binlog-shipper" | quote }}
      permissions {
        publish: [
          "pelorus.events.*.*.binlog.>",
          "$JS.API.INFO", "$JS.API.STREAM.INFO.PELORUS_EVENTS", "$JS.API.STREAM.CREATE.PELORUS_EVENTS",
          "$JS.API.STREAM.UPDATE.PELORUS_EVENTS"
        ]
        subscribe: ["_INBOX.>"]
      }
    }
    {
      # What is written about dumps.
      user: "backup-d"
      password: {{ get $generated.users "backup-d" | quote }}
      permissions {
        publish: [
          "pelorus.events.*.*.backup.>",
          "$JS.API.INFO", "$JS.API.STREAM.INFO.PELORUS_EVENTS", "$JS.API.STREAM.CREATE.PELORUS_EVENTS",
          "$JS.API.STREAM.UPDATE.PELORUS_EVENTS"
        ]
        subscribe: ["_INBOX.>"]
      }
    }
    {
      # Alerting, people and tests: reads everything, writes nothing.
      user: "reader"
      password: {{ get $generated.users "reader" | quote }}
      permissions {
        publish: [
          "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.PELORUS_EVENTS",
          "$JS.API.STREAM.MSG.GET.PELORUS_EVENTS", "$JS.API.DIRECT.GET.PELORUS_EVENTS", "$JS.API.DIRECT.GET.PELORUS_EVENTS.>",
          "$JS.API.CONSUMER.CREATE.PELORUS_EVENTS", "$JS.API.CONSUMER.CREATE.PELORUS_EVENTS.>",
          "$JS.API.CONSUMER.DURABLE.CREATE.PELORUS_EVENTS.>", "$JS.API.CONSUMER.INFO.PELORUS_EVENTS.>",
          "$JS.API.CONSUMER.LIST.PELORUS_EVENTS", "$JS.API.CONSUMER.NAMES.PELORUS_EVENTS",
          "$JS.API.CONSUMER.MSG.NEXT.PELORUS_EVENTS.>", "$JS.API.CONSUMER.DELETE.PELORUS_EVENTS.>",
          "$JS.ACK.PELORUS_EVENTS.>", "$JS.FC.PELORUS_EVENTS.>"
        ]
        subscribe: ["_INBOX.>", "pelorus.events.>"]
      }
    }
  ]
}
{{- end }}
