# shellcheck shell=bash
# A Docker engine. One that answers is used as it is; otherwise Debian's is started: by systemd, or
# by hand where there is none.

docker_answers() {
	docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

docker_start() {
	docker_answers && return
	((EUID == 0)) || die "no Docker engine answers, and only root can start one"
	if [[ -d /run/systemd/system ]]; then
		systemctl start docker
	else
		docker_start_by_hand
	fi
	docker_wait
}

docker_start_by_hand() {
	say "starting a Docker engine by hand ($CACHE/log/dockerd.log)"
	docker_configuration >"$CACHE/run/daemon.json"
	# The engine outlives this script, and must not hold its lock.
	setsid nohup dockerd --config-file "$CACHE/run/daemon.json" --pidfile "$CACHE/run/dockerd.pid" \
		</dev/null >>"$CACHE/log/dockerd.log" 2>&1 9>&- &
}

docker_wait() {
	local deadline=$((SECONDS + 60))
	until docker_answers; do
		((SECONDS < deadline)) || { tail -n 20 "$CACHE/log/dockerd.log" >&2; die "the Docker engine does not answer"; }
		sleep 0.2
	done
}

# The runtime wrapper is for machines whose root lacks CAP_SYS_RESOURCE, and only for those.
docker_configuration() {
	local wrapper='{}'
	if docker_lacks_capability; then
		binary_runc_wrapper
		wrapper=$(jq -n --arg path "$CACHE/bin/runc-wrapper" \
			'{"default-runtime": "restricted", runtimes: {restricted: {path: $path}}}')
	fi
	jq --arg root "$CACHE/docker" '. + {"data-root": $root}' <<<"$wrapper"
}

docker_lacks_capability() {
	local cap_sys_resource=24 effective
	effective=$(awk '$1 == "CapEff:" {print $2}' /proc/self/status)
	(((16#$effective >> cap_sys_resource & 1) == 0))
}

# docker_build ARGUMENT... : `docker build`, with this machine's proxies, with or without buildx.
docker_build() {
	local name arguments=()
	for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
		[[ -z ${!name:-} ]] || arguments+=(--build-arg "$name")
	done
	docker buildx version >/dev/null 2>&1 || local -x DOCKER_BUILDKIT=0
	docker build "${arguments[@]}" "$@"
}

# image_is IMAGE KEY : whether the engine holds IMAGE as made by us from KEY.
image_is() {
	[[ $(docker image inspect --format '{{index .Config.Labels "certrotation.key"}}' "$1" 2>/dev/null) == "$2" ]]
}

# image_pulled IMAGE : whether the engine holds IMAGE, or can pull it.
image_pulled() {
	docker image inspect "$1" >/dev/null 2>&1 || timeout 300 docker pull --quiet "$1" >/dev/null 2>&1
}

# Every watcher of files takes an inotify instance; with the usual 128 a few clusters use them up,
# and then reloads of certificates silently turn into polling.
inotify_raise() {
	local wanted=8192 limit=/proc/sys/fs/inotify/max_user_instances
	(($(<"$limit") >= wanted)) && return
	echo "$wanted" >"$limit" || say "warning: fs.inotify.max_user_instances is only $(<"$limit")"
}
