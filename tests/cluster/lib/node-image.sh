# shellcheck shell=bash
# The image of a node: KIND_NODE_IMAGE if it can be had, otherwise one that we build with kind's own
# base files, Debian's packages and our binaries.

# node_image : prints the image to use; it is in the engine then.
node_image() {
	local image=${KIND_NODE_IMAGE:-} key
	if [[ -n $image ]]; then
		if image_pulled "$image"; then
			echo "$image"
			return
		fi
		say "$image is not here and can't be pulled: using our own"
	fi
	image=kindest/node:$KUBERNETES_VERSION
	key=$( { components_key; key node lib/node-image.sh; echo "$KIND_VERSION"; } | sha256sum | cut -c1-12)
	image_is "$image" "$key" || node_image_build "$image" "$key"
	echo "$image"
}

node_image_build() {
	local image=$1 key=$2
	base_image bookworm
	logged node-base "building the node's base: about a minute" node_base_build "$key"
	logged components "building the images of the components" components_build "$key"
	logged node-image "building $image" node_image_commit "$image" "$key"
	node_image_parts | { grep -v ":$key$" || true; } | xargs -r docker rmi >/dev/null
}

# node_image_parts : what node images were made from; only those of the newest stay.
node_image_parts() {
	docker images --filter 'reference=certrotation-node/*' --format '{{.Repository}}:{{.Tag}}'
}

# kind's entrypoint, units and settings come with its Go module.
node_base_build() {
	local context=$CACHE/run/node-base.part kind
	kind=$(go_clean mod download -json "sigs.k8s.io/kind@$KIND_VERSION" | jq -r .Dir)
	discard "$context"
	mkdir -p "$context"
	cp -r --no-preserve=mode "$kind/images/base/files" "$context/kind"
	cp "$CLUSTER_DIR/node/Dockerfile" "$context"
	docker_build --build-arg "PAUSE_IMAGE=$(component_images | grep /pause:)" \
		--tag "certrotation-node/base:$1" "$context"
	discard "$context"
}

# component_images : the names that kubeadm expects.
component_images() {
	"$CACHE/bin/kubeadm" config images list --kubernetes-version "$KUBERNETES_VERSION"
}

# node_image_commit IMAGE KEY : adds Kubernetes and the components' images to a running base.
node_image_commit() {
	local image=$1 key=$2 stage=certrotation-node-stage tags
	tags=("${COMPONENTS[@]/#/certrotation-node\/}")
	# An interrupted run may have left one.
	docker rm --force --volumes "$stage" >/dev/null 2>&1 || true
	docker run --detach --name "$stage" --entrypoint sleep "certrotation-node/base:$key" infinity
	docker cp --follow-link "$CACHE/bin/kubernetes" "$stage:/usr/bin/kubernetes"
	docker cp "$CLUSTER_DIR/node/import" "$stage:/kind/import"
	docker save "${tags[@]/%/:$key}" |
		docker exec --interactive "$stage" bash /kind/import "$KUBERNETES_VERSION" "$key"
	docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' \
		--change "LABEL certrotation.key=$key" "$stage" "$image"
	docker rm --force --volumes "$stage"
}
