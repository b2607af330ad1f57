# shellcheck shell=bash
# What tests in bash share: looking, waiting, and the count of what was true. Sourced, with
#
#   name   of the cluster     out   folder for logs     case   what a failure is told with; may be empty
: "${name:?}" "${out:?}"
passed=0 failed=0
case=${case:-}

# A kubeconfig from before a rotation is refused after it; the node has the present one.
k() {
	(umask 077 && kind get kubeconfig --name "$name" >"$out/kubeconfig" 2>/dev/null)
	kubectl --kubeconfig "$out/kubeconfig" --request-timeout=20s "$@"
}
on() { docker exec "$@"; } # NODE COMMAND...

# until_true SECONDS WHAT COMMAND...: polled; the command's failure is the answer "not yet".
until_true() {
	local until=$((SECONDS + $1)) what=$2
	shift 2
	while ! "$@" >"$out/wait.log" 2>&1; do
		if [ "$SECONDS" -gt "$until" ]; then
			echo "    waited in vain for $what: $(tail -n 1 "$out/wait.log")"
			return 1
		fi
		sleep 0.5
	done
}

# check WHAT COMMAND...: what it says is told when it fails.
check() {
	local what=$1
	shift
	if "$@" >"$out/check.log" 2>&1; then
		passed=$((passed + 1))
		return
	fi
	failed=$((failed + 1))
	echo "  FAILED ${case:+$case: }$what: $(tail -n 5 "$out/check.log" | cut -c1-300)"
}

# The controller's logs, the rotation and pods, for whoever reads a failure.
diagnose() {
	k -n certrotation-system logs --prefix --all-containers -l app.kubernetes.io/name=certrotation --tail=100 || true
	k -n certrotation-nodes describe pods || true
	k get certificaterotations -o yaml || true
	k get pods -A -o wide || true
}

# deploy_product IMAGE: deploy/ with that image.
deploy_product() {
	kubectl kustomize deploy | sed "s|image: certrotation:dev\$|image: $1|" | k apply -f - >"$out/apply.log"
}

# --- True when nothing runs, and after every run -------------------------------------------------------------------------------------

no_jobs() { [ -z "$(k -n certrotation-nodes get pods -o name)" ]; }
no_key() { k -n certrotation-nodes get secrets -o json | jq -e '[.items[].data // {} | keys[] | select(endswith(".key"))] | length == 0'; }
all_ready() { k wait --for=condition=Ready nodes --all --timeout=1s; }
# no_strays PKI NODE...: nothing of a run is on a node.
no_strays() {
	local pki=$1 n bad=0
	shift
	for n; do
		on "$n" sh -c '[ -z "$(find /etc/kubernetes /var/lib/kubelet/pki /var/lib/certrotation -name "*certrotation-*" -print; ls -d '"$pki"'/certrotation /var/lib/certrotation/*/ 2>/dev/null)" ]' || bad=1
	done
	return "$bad"
}
