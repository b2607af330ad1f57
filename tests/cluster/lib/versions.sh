# shellcheck shell=bash disable=SC2034
# What is built, in which version. Kubernetes' and etcd's are those of their go.mod.

# required DIRECTORY MODULE : the version that src/DIRECTORY/go.mod requires.
required() {
	awk -v module="$2" '$1 == "require" {sub(/^require /, "")} $1 == module && $2 ~ /^v/ {print $2; exit}' \
		"$CLUSTER_DIR/src/$1/go.mod"
}

KUBERNETES_VERSION=$(required kubernetes k8s.io/kubernetes)
ETCD_VERSION=$(required etcd go.etcd.io/etcd/server/v3)
COREDNS_VERSION=v1.12.1
KIND_VERSION=v0.30.0
# The name is compiled into kind.
LOAD_BALANCER_IMAGE=kindest/haproxy:v20230606-42a2262b
