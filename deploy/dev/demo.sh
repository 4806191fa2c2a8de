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

say "Summary"
kubectl -n "$namespace" get mysqlcluster "$cluster"
printf '%-46s %8s s\n' "apply to Ready 3/3" "$(seconds "$t0" "$t1")"
printf '%-46s %8s s  (%s per second, one connection, client start included)\n' "$rows acknowledged inserts" "$(seconds "$t2" "$t3")" "$(awk -v a="$t2" -v b="$t3" -v n="$rows" 'BEGIN { printf "%d", n / ((b - a) / 1e9) }')"
printf '%-46s %8s s\n' "read back and compared on three instances" "$(seconds "$t3" "$t4")"
