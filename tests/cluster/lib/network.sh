# shellcheck shell=bash
# The network of the pods: the ptp plugin on every node (kind's published images have no bridge), a
# route to every other node's pods, and masquerading for what leaves the cluster. kindnet, kind's own,
# can be had only from a registry.

# network_install NAME [NODE] : on every node, also when run again after NODE has joined.
network_install() {
	local nodes node subnet
	nodes=$(network_nodes "$@")
	while read -r node subnet; do
		docker exec --interactive "$node" bash -s -- "$node" "$subnet" "$POD_SUBNET" "$nodes" \
			<"$CLUSTER_DIR/node/pod-network" || die "$node: the pod network could not be set up"
	done <<<"$nodes"
}

# network_nodes NAME [NODE] : a line for each node with its container's name and its pods' subnet. A node that has just
# joined registers itself, and is given its subnet, a moment later: NODE, or all, are waited for.
network_nodes() {
	local deadline=$((SECONDS + 60)) expected nodes
	expected=${2:-$(cluster_nodes "$1")}
	until nodes=$(kubectl_in "$1" get nodes --output json 2>/dev/null | network_subnets) &&
		[[ -z $(comm -23 <(echo "$expected" | sort) <(cut -d ' ' -f 1 <<<"$nodes" | sort)) ]]; do
		((SECONDS < deadline)) || die "$1: of" $expected "these have registered and got a podCIDR: ${nodes:-none}"
		sleep 0.2
	done
	echo "$nodes"
}

# A node may have another name than its container, which kind puts at the end of its providerID.
network_subnets() {
	jq -r '.items[] | select(.spec.podCIDR) | "\((.spec.providerID // .metadata.name) | split("/") | last) \(.spec.podCIDR)"'
}
