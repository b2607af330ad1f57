# shellcheck shell=bash
# debian:bookworm-slim and debian:trixie-slim: pulled where a registry answers, otherwise made with
# debootstrap, so that Dockerfiles that start FROM them build unchanged anywhere.

# base_image SUITE
base_image() {
	local image=debian:$1-slim key
	key=$(key lib/base.sh)-$(base_settings | sha256sum | cut -c1-8)
	image_is "$image" "$key" && return
	base_is_ours "$image" || ! image_pulled "$image" || return 0
	((EUID == 0)) || die "$image can't be pulled, and only root can make it"
	logged "base-$1" "making $image with debootstrap: about a minute" base_make "$1" "$image" "$key"
}

# base_is_ours IMAGE : made by an earlier version of this file, or with other settings.
base_is_ours() {
	[[ -n $(docker image inspect --format '{{index .Config.Labels "certrotation.key"}}' "$1" 2>/dev/null) ]]
}

base_make() {
	local suite=$1 image=$2 key=$3 root=$CACHE/run/base-$1.part archive
	discard "$root"
	mapfile -t archive < <(base_archive Debian)
	debootstrap --variant=minbase "$suite" "$root" "${archive[@]}"
	base_configure "$suite" "$root"
	base_slim "$root"
	tar -C "$root" --numeric-owner -c . |
		docker import --change "LABEL certrotation.key=$key" --change 'CMD ["bash"]' - "$image"
	discard "$root"
}

# base_archive LABEL : where this machine's apt gets Debian (or Debian-Security) from; nothing if it
# does not. Then debootstrap's own default serves.
base_archive() {
	apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		awk -v label="$1" '$1 == label {print $2; exit}'
}

# base_settings : what this machine's apt needs to reach its archives, as apt configuration.
base_settings() {
	apt-config dump 2>/dev/null | grep -E '^Acquire::(http|https|Check-[A-Za-z-]+|Retries)\b.* ".+";' || true
}

# The archives, settings and authorities of this machine, for apt inside `docker build`.
base_configure() {
	local suite=$1 root=$2 security
	[[ -z $(base_archive Debian) ]] || base_source "$(base_archive Debian)" "$suite $suite-updates" \
		>"$root/etc/apt/sources.list"
	security=$(base_archive Debian-Security)
	[[ -z $security ]] || base_source "$security" "$suite-security" >>"$root/etc/apt/sources.list"
	base_settings >"$root/etc/apt/apt.conf.d/90host"
	if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
		mkdir -p "$root/usr/local/share/ca-certificates"
		cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
	fi
	# With an archive behind TLS, apt needs the authorities before it can install ca-certificates.
	if [[ $(base_archive Debian) == https:* ]]; then
		mkdir -p "$root/etc/ssl/certs"
		cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
	fi
}

base_source() {
	local suite
	for suite in $2; do
		echo "deb $1 $suite main"
	done
}

# As the published slim images: no service starts when it is installed, no documentation.
base_slim() {
	local root=$1
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	printf 'path-exclude %s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' '/usr/share/locale/*' \
		>"$root/etc/dpkg/dpkg.cfg.d/slim"
	rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb \
		"$root"/usr/share/{doc,man,info,locale}/* "$root"/var/log/{apt,bootstrap.log,dpkg.log}
	: >"$root/etc/resolv.conf"
}
