# shellcheck shell=bash
# The programs, each built once from Go modules or from src/.

binaries_build() {
	go_check
	binary_kind
	binary_pause
	binary_etcd
	binary_coredns
	binary_kubernetes
}

go_check() {
	local version
	version=$(go env GOVERSION 2>/dev/null) || die "Go 1.24 or newer is needed, and there is none in PATH"
	[[ $(printf '%s\n' go1.24 "$version" | sort -V | head -n 1) == go1.24 ]] ||
		die "Go 1.24 or newer is needed, this is $version"
}

# binary NAME VERSION KEY TEXT FUNCTION : builds NAME if it is not there yet, and links it into bin.
binary() {
	local file=$1-$2-$3
	[[ -e $CACHE/binaries/$file ]] ||
		logged "$1" "building $1 $2: $4" made "$CACHE/binaries/$file" "$5"
	link "../binaries/$file" "$1"
}

# link TARGET NAME : replaces bin/NAME in one step.
link() {
	[[ $(readlink "$CACHE/bin/$2") == "$1" ]] && return
	ln -s "$1" "$CACHE/bin/.$2.$$"
	mv -T "$CACHE/bin/.$2.$$" "$CACHE/bin/$2"
}

# Go as we want it, whatever the person's own settings are; a newer toolchain is fetched if a module
# asks for it.
go_clean() {
	env CGO_ENABLED=0 GOFLAGS= GOWORK=off GOTOOLCHAIN=auto GOOS= GOARCH= go "$@"
}

go_build() {
	go_clean build -C "$CLUSTER_DIR/src/$1" -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w ${3:-}" -o "$2" .
}

# go_install PACKAGE@VERSION FILE
go_install() {
	local bin=$2.bin
	rm -rf "$bin"
	GOBIN=$bin go_clean install -trimpath -buildvcs=false -ldflags '-s -w' "$1"
	mv "$bin"/* "$2"
	rmdir "$bin"
}

binary_kubernetes() {
	binary kubernetes "$KUBERNETES_VERSION" "$(key src/kubernetes)" "6 to 8 minutes on two cores" build_kubernetes
	link kubernetes kubectl
	link kubernetes kubeadm
}

build_kubernetes() {
	local package flags='' number=${KUBERNETES_VERSION#v}
	local major=${number%%.*} minor=${number#*.}
	for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
		flags+=" -X $package.gitVersion=$KUBERNETES_VERSION -X $package.gitTreeState=clean"
		flags+=" -X $package.gitMajor=$major -X $package.gitMinor=${minor%%.*}"
	done
	go_build kubernetes "$1" "$flags"
}

binary_etcd() {
	binary etcd "$ETCD_VERSION" "$(key src/etcd)" "half a minute" build_etcd
}

build_etcd() {
	go_build etcd "$1"
}

binary_coredns() {
	binary coredns "$COREDNS_VERSION" module "2 to 3 minutes" build_coredns
}

build_coredns() {
	go_install "github.com/coredns/coredns@$COREDNS_VERSION" "$1"
}

binary_kind() {
	binary kind "$KIND_VERSION" module "20 seconds" build_kind
}

build_kind() {
	go_install "sigs.k8s.io/kind@$KIND_VERSION" "$1"
}

binary_pause() {
	binary pause 1 "$(key src/pause)" "at once" build_pause
}

build_pause() {
	gcc -std=c17 -static -Os -s -Wall -Wextra -Werror -o "$1" "$CLUSTER_DIR/src/pause/pause.c"
}

binary_runc_wrapper() {
	go_check
	binary runc-wrapper 1 "$(key src/runc-wrapper)" "a few seconds" build_runc_wrapper
}

build_runc_wrapper() {
	go_build runc-wrapper "$1"
}
