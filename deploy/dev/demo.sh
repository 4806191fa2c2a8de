#!/usr/bin/env bash
# The main job, once: a cluster of three, written to through its primary Service and read back from every instance.
set -euo pipefail
cd "$(dirname "$0")/../.."
eval "$(cargo run --quiet -p pelorus-dev --bin devcluster -- env)"
namespace=pelorus-demo cluster=shop rows=${ROWS:-2000}
now() { date +%s%N; }
seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", (b - a) / 1e9 }'; }
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# SQL from standard input, as the owner of the data, from inside the pod of the first argument to the host of the second.
# The password stays in the pod: it is read from the file that is mounted there.
sql() {
  kubectl -n "$namespace" exec -i "$1" -c mysql -- sh -c '
    umask 077; f=$(mktemp /tmp/demo.XXXXXX); trap "rm -f $f" EXIT
    printf "[client]\nuser=admin\npassword=\"%s\"\nssl-ca=/etc/pelorus/tls/ca.crt\nssl-mode=VERIFY_IDENTITY\n" "$(cat /etc/pelorus/accounts/admin)" > $f
    mysql --defaults-extra-file=$f --connect-timeout=10 -N -B -h "$0"' "$2"
}

say "A clean start"
kubectl delete namespace "$namespace" --ignore-not-found --wait --timeout=120s
kubectl create namespace "$namespace"

say "Apply deploy/examples/shop.yaml and wait for 3/3"
t0=$(now)
kubectl -n "$namespace" apply -f deploy/examples/shop.yaml
if ! kubectl -n "$namespace" wait mysqlcluster/"$cluster" --for=jsonpath='{.status.ready}'=3/3 --timeout=180s; then
  kubectl -n "$namespace" get mysqlcluster,pods -o wide || true
  kubectl -n "$namespace" get mysqlcluster "$cluster" -o jsonpath='{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}' || true
  exit 1
fi
t1=$(now)
kubectl -n "$namespace" get mysqlcluster "$cluster"

say "Write $rows rows through $cluster-primary"
sql "$cluster-2" "$cluster-primary" <<SQL
CREATE DATABASE demo;
CREATE TABLE demo.orders (id INT PRIMARY KEY, item VARCHAR(64) NOT NULL, at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6));
SQL
t2=$(now)
# One transaction a row: each waits for a replica's acknowledgement.
seq 1 "$rows" | awk '{ printf "INSERT INTO demo.orders (id, item) VALUES (%d, CONCAT(\x27item-\x27, %d));\n", $1, $1 }' | sql "$cluster-2" "$cluster-primary"
t3=$(now)
executed=$(echo 'SELECT REPLACE(@@gtid_executed, "\n", "");' | sql "$cluster-2" "$cluster-primary")

say "Read them back from every instance"
expected=""
for instance in "$cluster-0" "$cluster-1" "$cluster-2"; do
  found=$(sql "$instance" "$instance.$cluster.$namespace.svc" <<SQL | tail -n 1
SELECT WAIT_FOR_EXECUTED_GTID_SET('$executed', 30);
SELECT CONCAT(COUNT(*), ' rows, digest ', BIT_XOR(CAST(CONV(SUBSTR(SHA2(CONCAT_WS('|', id, item, at), 256), 1, 16), 16, 10) AS UNSIGNED))) FROM demo.orders;
SQL
)
  printf '%-8s %s\n' "$instance" "$found"
  [ -z "$expected" ] && expected=$found
  if [ "$found" != "$expected" ]; then echo "$instance differs from $cluster-0" >&2; exit 1; fi
done
case $expected in "$rows rows,"*) ;; *) echo "expected $rows rows" >&2; exit 1 ;; esac
t4=$(now)

say "Archive it: an S3 server with TLS, a location, spec.archive"
tls=$(mktemp -d)
trap 'rm -rf "$tls"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=s3 \
  -addext "basicConstraints=critical,CA:FALSE" -addext "subjectAltName=DNS:s3.$namespace.svc" -keyout "$tls/tls.key" -out "$tls/tls.crt" 2>/dev/null
kubectl -n "$namespace" create secret tls s3-tls --cert="$tls/tls.crt" --key="$tls/tls.key"
kubectl -n "$namespace" create secret generic s3-ca --from-file=ca.crt="$tls/tls.crt"
kubectl -n "$namespace" apply -f deploy/examples/archive.yaml
kubectl -n "$namespace" rollout status deployment/s3 --timeout=60s
kubectl -n "$namespace" patch mysqlcluster "$cluster" --type=merge -p '{"spec":{"archive":{"locationRef":{"name":"here"}}}}'
kubectl -n "$namespace" wait mysqlcluster/"$cluster" --for=condition=BinlogShipping --timeout=60s

say "Dump it"
t5=$(now)
kubectl -n "$namespace" apply -f - <<YAML
apiVersion: pelorus.dev/v1alpha1
kind: MySQLDump
metadata: {name: first}
spec: {clusterRef: {name: $cluster}, locationRef: {name: here}}
YAML
kubectl -n "$namespace" wait mysqldump/first --for=jsonpath='{.status.phase}'=Succeeded --timeout=120s
t6=$(now)
kubectl -n "$namespace" get mysqldump first

say "More writes, and an accident"
more=$((rows / 4))
seq "$((rows + 1))" "$((rows + more))" | awk '{ printf "INSERT INTO demo.orders (id, item) VALUES (%d, CONCAT(\x27item-\x27, %d));\n", $1, $1 }' | sql "$cluster-2" "$cluster-primary"
digest="SELECT CONCAT(COUNT(*), ' rows, digest ', BIT_XOR(CAST(CONV(SUBSTR(SHA2(CONCAT_WS('|', id, item, at), 256), 1, 16), 16, 10) AS UNSIGNED))) FROM demo.orders;"
before=$(echo "$digest" | sql "$cluster-2" "$cluster-primary")
moment=$(echo "SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ');" | sql "$cluster-2" "$cluster-primary")
echo "DELETE FROM demo.orders WHERE id % 2 = 0;" | sql "$cluster-2" "$cluster-primary"
after=$(echo "$digest" | sql "$cluster-2" "$cluster-primary")
printf 'at %s   %s\nand then  %s\n' "$moment" "$before" "$after"
executed=$(echo 'SELECT REPLACE(@@gtid_executed, "\n", "");' | sql "$cluster-2" "$cluster-primary")

say "Restore it to that microsecond, as a second cluster"
for _ in $(seq 60); do
  shipped=$(kubectl -n "$namespace" get mysqlcluster "$cluster" -o jsonpath='{.status.restorable.gtid}')
  [ "$(echo "SELECT GTID_SUBSET('$executed', '$shipped');" | sql "$cluster-2" "$cluster-primary")" = 1 ] && break
  sleep 1
done
t7=$(now)
kubectl -n "$namespace" apply -f - <<YAML
apiVersion: pelorus.dev/v1alpha1
kind: MySQLCluster
metadata: {name: copy}
spec:
  instances: 3
  image: localhost/mysql:9.7
  storage: {size: 2Gi}
  resources: {requests: {cpu: 100m, memory: 768Mi}, limits: {memory: 1536Mi}}
  volumeRetention: {onScaleDown: Retain, onDelete: Delete}
  restore:
    fromLocation: {locationRef: {name: here}, cluster: $cluster}
    pointInTime: "$moment"
YAML
if ! kubectl -n "$namespace" wait mysqlcluster/copy --for=jsonpath='{.status.ready}'=3/3 --timeout=240s; then
  kubectl -n "$namespace" get mysqlcluster copy -o jsonpath='{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}' || true
  exit 1
fi
t8=$(now)
kubectl -n "$namespace" get mysqlcluster copy -o jsonpath='{range .status.conditions[?(@.type=="Restored")]}{.reason}: {.message}{"\n"}{end}'
restored=$(echo "$digest" | sql copy-2 copy-primary)
printf '%-8s %s\n' shop "$before" copy "$restored"
if [ "$restored" != "$before" ]; then echo "the copy differs from what was there before the accident" >&2; exit 1; fi

say "Summary"
kubectl -n "$namespace" get mysqlcluster
printf '%-46s %8s s\n' "apply to Ready 3/3" "$(seconds "$t0" "$t1")"
printf '%-46s %8s s  (%s per second, one connection, client start included)\n' "$rows acknowledged inserts" "$(seconds "$t2" "$t3")" "$(awk -v a="$t2" -v b="$t3" -v n="$rows" 'BEGIN { printf "%d", n / ((b - a) / 1e9) }')"
printf '%-46s %8s s\n' "read back and compared on three instances" "$(seconds "$t3" "$t4")"
printf '%-46s %8s s\n' "dump, asked for to made" "$(seconds "$t5" "$t6")"
printf '%-46s %8s s\n' "restore to a microsecond, apply to Ready 3/3" "$(seconds "$t7" "$t8")"
