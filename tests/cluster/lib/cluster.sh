# shellcheck shell=bash
# Creating and removing clusters.

POD_SUBNET=10.244.0.0/16

kubeconfig() {
	echo "$CACHE/clusters/$1/kubeconfig"
}

# kubeconfig_now NAME : the one of before is refused once the cluster's authority was replaced.
kubeconfig_now() {
	local text
	text=$("$CACHE/bin/kind" get kubeconfig --name "$1")
	(umask 077 && echo "$text" >"$(kubeconfig "$1")")
}

kubectl_in() {
	local name=$1
	shift
	"$CACHE/bin/kubectl" --kubeconfig "$(kubeconfig "$name")" "$@"
}

# cluster_name NAME : refuses what kind, Docker or a node's name would not take.
cluster_name() {
	[[ $1 =~ ^[a-z0-9][a-z0-9-]{0,40}$ ]] || die "'$1': a cluster's name is made of a-z, 0-9 and -"
}

# cluster_create NAME IMAGE CONTROL-PLANES WORKERS NODES-FILE
cluster_create() {
	mkdir -p "$CACHE/clusters/$1"
	cluster_configuration "$3" "$4" "$5" >"$CACHE/clusters/$1/kind.yaml"
	"$CACHE/bin/kind" create cluster --name "$1" --image "$2" --retain \
		--config "$CACHE/clusters/$1/kind.yaml" --kubeconfig "$(kubeconfig "$1")"
}

cluster_configuration() {
	local i
	cat <<-END
		kind: Cluster
		apiVersion: kind.x-k8s.io/v1alpha4
		networking:
		  disableDefaultCNI: true
		  podSubnet: $POD_SUBNET
		nodes:
	END
	if [[ -n $3 ]]; then cat "$3" && return; fi
	for ((i = 0; i < $1; i++)); do echo '- role: control-plane'; done
	for ((i = 0; i < $2; i++)); do echo '- role: worker'; done
}

# cluster_wait NAME : until every node is Ready and every CoreDNS runs.
cluster_wait() {
	kubectl_in "$1" wait --for=condition=Ready node --all --timeout=120s >&2
	kubectl_in "$1" --namespace kube-system rollout status deployment/coredns --timeout=120s >&2
	kubectl_in "$1" --namespace kube-system rollout status daemonset/kube-proxy --timeout=120s >&2
}

# cluster_nodes NAME [ROLE] : the names of its Kubernetes nodes, the load balancer left out.
cluster_nodes() {
	docker ps --filter "label=io.x-k8s.kind.cluster=$1" --format '{{.Names}} {{.Label "io.x-k8s.kind.role"}}' |
		awk -v role="${2:-}" '($2 == "control-plane" || $2 == "worker") && (role == "" || $2 == role) {print $1}' | sort
}

# cluster_delete NAME : its containers with their volumes, whatever state they are in.
cluster_delete() {
	local containers
	mapfile -t containers < <(docker ps --all --quiet --filter "label=io.x-k8s.kind.cluster=$1")
	((${#containers[@]} == 0)) || docker rm --force --volumes "${containers[@]}" >/dev/null
	rm -rf "$CACHE/clusters/$1"
}

cluster_exists() {
	[[ -n $(docker ps --all --quiet --filter "label=io.x-k8s.kind.cluster=$1") ]]
}
