//go:build tools

// Package tools pins the programs beside Kubernetes that the development cluster runs.
package tools

import (
	_ "github.com/coredns/coredns"
	_ "github.com/nats-io/nats-server/v2"
	_ "go.etcd.io/etcd/server/v3"
	_ "helm.sh/helm/v3/cmd/helm"
)
