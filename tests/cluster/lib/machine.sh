# shellcheck shell=bash
# Containers that may become nodes of a running cluster.

# machine_start NAME NODE : from the image of the others, with the arguments of kind's Docker provider.
machine_start() {
	local image
	image=$(docker inspect --format '{{.Image}}' "$(cluster_nodes "$1" control-plane | head -n 1)")
	docker run --detach --tty --name "$2" --hostname "$2" --net kind --restart=on-failure:1 --init=false \
		--label "io.x-k8s.kind.cluster=$1" --label io.x-k8s.kind.role=worker \
		--cgroupns=private --privileged --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
		--tmpfs /tmp --tmpfs /run --volume /var --volume /lib/modules:/lib/modules:ro "$image" >/dev/null
	until docker exec "$2" ctr version >/dev/null 2>&1; do
		[[ $(docker inspect --format '{{.State.Running}}' "$2") == true ]] || die "$2 ended: docker logs $2"
		sleep 0.2
	done
}

# machine_exists NAME NODE
machine_exists() {
	cluster_nodes "$1" | grep --quiet --line-regexp --fixed-strings "$2"
}
