# shellcheck shell=bash
# The images of Kubernetes' components and of the load balancer. Ours have names of our own in the
# Docker engine, so that they never stand in for published ones there.

COMPONENTS=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy etcd coredns pause)

# components_key : what the images of the components are made from.
components_key() {
	local name
	{
		key images lib/images.sh lib/base.sh
		for name in kubernetes etcd coredns pause; do readlink "$CACHE/bin/$name"; done
	} | sha256sum | cut -c1-12
}

# components_build KEY
components_build() {
	local name context=$CACHE/run/images.part
	rm -rf "$context"
	mkdir -p "$context"
	cp "$CLUSTER_DIR/images/Dockerfile" "$context"
	for name in kubernetes etcd coredns pause; do
		cp --link --dereference "$CACHE/bin/$name" "$context/$name"
	done
	for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
		mkdir -p "$context/links/$name"
		ln -s kubernetes "$context/links/$name/$name"
	done
	for name in "${COMPONENTS[@]}"; do
		docker_build --quiet --target "$name" --tag "certrotation-node/$name:$1" "$context"
	done
	rm -rf "$context"
}

# load_balancer_image : what kind puts in front of several control planes.
load_balancer_image() {
	local key
	key=$(key load-balancer)
	image_is "$LOAD_BALANCER_IMAGE" "$key" && return
	base_is_ours "$LOAD_BALANCER_IMAGE" || ! image_pulled "$LOAD_BALANCER_IMAGE" || return 0
	base_image bookworm
	logged load-balancer "building $LOAD_BALANCER_IMAGE" docker_build --label "certrotation.key=$key" \
		--tag "$LOAD_BALANCER_IMAGE" "$CLUSTER_DIR/load-balancer"
}
