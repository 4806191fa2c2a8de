#!/usr/bin/env bash
# Installs or upgrades Pelorus with Helm, with the images that `make images` has made (see images.json in its output).
set -euo pipefail
cd "$(dirname "$0")/../.."
images=${1:?usage: install.sh IMAGES.json}
eval "$(cargo run --quiet -p pelorus-dev --bin devcluster -- env)"
namespace=pelorus-system
image() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$images" "$1"; }
install() { helm upgrade --install "$1" "deploy/charts/$1" --namespace "$namespace" --create-namespace --wait --timeout 3m "${@:2}" >/dev/null; }
install pelorus-crds
# An upgrade keeps what others have added: what a test has changed and could not change back (it was killed) is made anew.
kubectl --namespace "$namespace" delete deployments --selector pelorus.dev/changed-by-test --ignore-not-found
# References with a digest in them: the same reference never means another content, so an upgrade rolls just what changed.
install pelorus \
  --set failoverD.image="$(image failover-d)" \
  --set topologyCtl.image="$(image topology-ctl)" \
  --set binlogShipper.image="$(image binlog-shipper)" \
  --set backupD.image="$(image backup-d)" \
  --set backupD.config.verify_patience_seconds=15 \
  --set instanceImage="$(image instance-d)" \
  --set nats.bundled.image="$(image nats)"
kubectl --namespace "$namespace" get deployments
