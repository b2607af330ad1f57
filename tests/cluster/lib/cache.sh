# shellcheck shell=bash
# One folder outside the tree for everything that is made once:
#
#   binaries/   programs, NAME-VERSION-KEY          bin/   links to those in use
#   clusters/   NAME/kubeconfig                     log/   output of builds and of the Docker engine
#   docker/     data of an engine that we started   run/   locks, process ids, its configuration
#
# The key is a hash of what a thing is made from. Things are made beside their place and renamed
# into it, so that a name never stands for something half-made.

CACHE=${CERTROTATION_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/certrotation}
umask 022
mkdir -p "$CACHE"/{bin,binaries,clusters,log,run}

# key FILE_OR_DIRECTORY... : 12 hexadecimal digits over names and contents, relative to this folder.
key() {
	(cd "$CLUSTER_DIR" && find "$@" -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum | cut -c1-12
}

# locked NAME COMMAND... : one process at a time on this machine; says so when it has to wait.
locked() {
	local name=$1
	shift
	(
		flock --nonblock 9 || { say "waiting for another run ($name)"; flock 9; }
		"$@"
	) 9>"$CACHE/run/$name.lock"
}

# made PATH FUNCTION ARGUMENT... : unless PATH is there, has FUNCTION make it under another name
# (the last argument), and renames it.
made() {
	local path=$1 part=$1.part
	shift
	[[ -e $path ]] && return
	discard "$part"
	"$@" "$part"
	mv -T "$part" "$path"
}

# discard DIRECTORY : removes it with whatever an interrupted run left mounted inside.
discard() {
	findmnt --raw --noheadings --output TARGET | { grep -F "$1/" || true; } | sort -r | xargs -r umount
	rm -rf --one-file-system "$1"
}
