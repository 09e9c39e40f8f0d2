# What the image of helm-controller's jobs runs here: installs, upgrades or uninstalls one release with helm. Written from
# what helm-controller gives to its job (arguments, environment, /config, /chart) and from what a real K3s was seen to do.
set -eu

export HOME=/home/klipper-helm
export SSL_CERT_FILE=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt

verb=$1
shift
namespace=${TARGET_NAMESPACE:-$CHART_NAMESPACE}

field() {
  helm list --namespace "$namespace" --filter "^$NAME\$" --output yaml |
    sed -n "s/^[- ] $1: *\"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p" | head -n 1
}

status=$(field status)
revision=$(field revision)
echo "release $NAME in $namespace: status '$status', revision '$revision'"

if [ "$verb" = delete ]; then
  [ -z "$status" ] || helm uninstall "$NAME" --namespace "$namespace" --wait
  exit 0
fi

# The job that wins has made a revision: one that is tried again, or late, has nothing to do.
if [ "${revision:-0}" != "$EXPECTED_RELEASE_REVISION" ]; then
  echo "expected revision $EXPECTED_RELEASE_REVISION, nothing to do"
  exit 0
fi

case "$CHART_NAMESPACE/$(ls /chart 2>/dev/null)" in
*.base64)
  base64 -d "/chart/$NAME.tgz.base64" >"/tmp/$NAME.tgz"
  CHART=/tmp/$NAME.tgz
  ;;
esac
CHART=$(printf '%s' "$CHART" | sed "s#%{KUBERNETES_API}%#$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT#g")

set -- "$@" --labels "helmcharts.helm.cattle.io/configHash=$CONFIG_HASH"
for file in /config/values-*.yaml; do
  [ ! -e "$file" ] || set -- "$@" --values "$file"
done
[ -z "${TIMEOUT:-}" ] || set -- "$@" --timeout "$TIMEOUT"
[ "$PLAIN_HTTP" = false ] || set -- "$@" --plain-http
[ "$SERVER_SIDE" = auto ] || set -- "$@" --server-side="$SERVER_SIDE"
[ "$FORCE_CONFLICTS" = false ] || set -- "$@" --force-conflicts

case "$status" in
"")
  exec helm install "$NAME" "$CHART" "$@"
  ;;
deployed)
  exec helm upgrade "$NAME" "$CHART" "$@"
  ;;
*)
  if [ "$FAILURE_POLICY" = abort ]; then
    echo "release $NAME is $status and the failure policy is abort: a person has to look at it"
    exit 1
  fi
  helm uninstall "$NAME" --namespace "$namespace" --wait
  exec helm install "$NAME" "$CHART" "$@"
  ;;
esac
