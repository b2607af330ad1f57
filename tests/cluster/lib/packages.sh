# shellcheck shell=bash
# Debian packages, installed only when a program is missing.

# packages_install : what the rest of these scripts calls.
packages_install() {
	local missing
	mapfile -t missing < <(packages_missing | sort -u)
	((${#missing[@]})) || return 0
	command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them and run this again"
	((EUID == 0)) || die "missing: ${missing[*]}; run this as root, or install them"
	logged packages "installing ${missing[*]}" packages_fetch "${missing[@]}"
}

packages_missing() {
	local pair
	for pair in debootstrap:debootstrap findmnt:mount flock:util-linux gcc:gcc ip:iproute2 \
		iptables:iptables jq:jq ps:procps; do
		command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
	done
	compgen -G '/usr/lib*/*/libc.a' >/dev/null || echo libc6-dev
	[[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
	docker_answers || packages_missing_docker
}

# Debian 13 has Docker's client in a package of its own.
packages_missing_docker() {
	local program
	for program in dockerd containerd runc; do
		command -v "$program" >/dev/null || echo docker.io
	done
	command -v docker >/dev/null && return
	(source /etc/os-release && ((${VERSION_ID%%.*} < 13)) && echo docker.io || echo docker-cli)
}

packages_fetch() {
	apt-get -o DPkg::Lock::Timeout=600 update
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "$@"
}
