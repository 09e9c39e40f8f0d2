#!/bin/sh
# Makes this machine a site, from the kit in whose directory this file lies: docs/enclave.md.
#
# usage: sh provision.sh --url URL [options]        (as root; --help says the rest)
#
# Everything is checked before the first change. Every step looks first whether it is done: a second run changes nothing,
# and a run that was killed is finished by the next one. What needs more than installing is done by airlift itself.
set -eu
umask 022
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

readonly USER_NAME=airlift LINK=/opt/airlift COMMAND=/usr/local/bin/airlift
# Leads to what an earlier kit installed; what is older than that goes.
readonly PREVIOUS=$LINK.previous
readonly STATE=/var/lib/airlift UNITS=/etc/systemd/system
readonly SITE=$STATE/site IDENTITY=$STATE/site.key TLS=$STATE/tls
# What a killed run still owed to the server that runs.
readonly RESTART=$STATE/.restart RELOAD=$STATE/.reload
readonly ANCHORS=/usr/local/share/ca-certificates AUTHORITIES=/etc/ssl/certs/ca-certificates.crt
readonly LISTEN_FILE=$UNITS/airlift-serve.socket.d/listen.conf
readonly ADDRESS='
import ipaddress, sys
host, _, port = sys.argv[1].rpartition(":")
ipaddress.ip_address(host[1:-1] if host.startswith("[") else host)
assert port.isdecimal() and 0 < int(port) < 65536 and (":" in host) == host.startswith("[")
'
readonly VENV_OK=.airlift-complete

usage() {
  cat <<'TEXT'
usage: sh provision.sh --url URL [options]

Makes this machine a site, from the kit in whose directory this file lies.

  --url URL                where clients reach the site, such as http://mirror.example:8080
  --fingerprint HEX        of the kit's trust file, from paper; another is refused
  --listen ADDRESS:PORT    default: what a loopback --url says, else 127.0.0.1:8080
  --identity FILE          the site's private key; default: one is made, and its public half printed
  --passphrase-file FILE   its first line opens the identity
  --tls-cert FILE          PEM chain to answer with, and
  --tls-key FILE           its PEM key, without a passphrase
  --python PROGRAM         default: the python of the version that the kit is for
  --dry-run                say what would change, and change nothing
  --undo                   remove what was installed; the site and its user stay
  --undo --remove-state    remove the site with all that it holds, its keys and its user, too

exit codes: 0 done; 1 a step failed, run the same command again; 2 the command line is off; 12 signature or sums of the
kit do not match; 14 the trust file is not the one of the paper, or not the one that the site pinned; 18 the machine
cannot become a site as it is; 130 interrupted, run the same command again
TEXT
}

say() { printf 'airlift: %s\n' "$1" >&2; }
# fail CODE MESSAGE [HINT]
fail() {
  say "error: $2"
  [ $# -lt 3 ] || say "hint: $3"
  exit "$1"
}

url='' fingerprint='' listen='' identity='' passphrase='' cert='' key='' python='' dry='' undo='' remove_state=''
while [ $# -gt 0 ]; do
  case $1 in
    --url | --fingerprint | --listen | --identity | --passphrase-file | --tls-cert | --tls-key | --python)
      [ $# -ge 2 ] && [ -n "$2" ] || fail 2 "$1 needs a value" "see --help"
      case $1 in
        --url) url=$2 ;;
        --fingerprint) fingerprint=$2 ;;
        --listen) listen=$2 ;;
        --identity) identity=$(realpath -m -- "$2") ;;
        --passphrase-file) passphrase=$(realpath -m -- "$2") ;;
        --tls-cert) cert=$(realpath -m -- "$2") ;;
        --tls-key) key=$(realpath -m -- "$2") ;;
        --python) python=$2 ;;
      esac
      shift 2
      ;;
    --dry-run) dry=yes && shift ;;
    --undo) undo=yes && shift ;;
    --remove-state) remove_state=yes && shift ;;
    --help) usage && exit 0 ;;
    *) fail 2 "$1 is no option" "see --help" ;;
  esac
done

cd "$(dirname -- "$0")"
kit=$(pwd)
changes=0 owed=''
trap 'exit 130' INT TERM HUP

# ------------------------------------------------------------------------------------------------ looking

content() { sha256sum <"$1" 2>/dev/null; }
same() { [ -f "$2" ] && [ "$(content "$1")" = "$(content "$2")" ]; }
has_user() { id -u "$USER_NAME" >/dev/null 2>&1; }
# The value of a key of site.yaml, as airlift wrote it.
setting() { sed -n "s/^$1: //p" "$SITE/site.yaml" | tr -d "'\""; }
plain_hex() { printf '%s' "$1" | tr -d ' :\n' | tr 'A-F' 'a-f'; }
# What a link leads to, where that is an airlift and whole.
installed() {
  local at
  at=$(readlink "$1" 2>/dev/null) && [ -f "$at/$VENV_OK" ] && printf '%s' "$at"
}
has_systemd() { [ -d /run/systemd/system ]; }
unit_is() { systemctl "is-$1" --quiet "$2" 2>/dev/null; }

# Every file that is signed, and nothing beside it: what is not listed in wheels/ would be offered to pip.
check_kit() {
  local said
  for file in SHA256SUMS SHA256SUMS.sig signer.pub; do
    [ -f "$file" ] || fail 12 "$kit/$file is missing" "run provision.sh where it lies, in the kit's directory"
  done
  said=$(openssl dgst -sha256 -verify signer.pub -signature SHA256SUMS.sig SHA256SUMS 2>&1) || true
  [ "$said" = "Verified OK" ] || fail 12 "the signature of SHA256SUMS does not match" "carry the kit again"
  sha256sum --check --strict --quiet SHA256SUMS >&2 ||
    fail 12 "a file of the kit is not what SHA256SUMS says" "carry the kit again"
  for file in * wheels/* ca/* k3s/*; do
    case $file in SHA256SUMS | SHA256SUMS.sig | *'*') continue ;; esac
    [ ! -d "$file" ] || [ -h "$file" ] || continue
    cut -c67- SHA256SUMS | grep -qxF -- "$file" ||
      fail 12 "$kit/$file is not listed in SHA256SUMS" "nobody signed it; remove it, or carry the kit again"
  done
}

check_programs() {
  for program in openssl sha256sum sed grep getent useradd groupadd runuser flock; do
    command -v "$program" >/dev/null || fail 18 "this machine has no $program" "install it from the system's own medium"
  done
}

check_machine() {
  local version
  version=$(sed -n '1s/.*for Python \([0-9.]*\) on .*/\1/p' INSTALL.txt)
  python=${python:-python$version}
  python=$(command -v "$python") || fail 18 "this machine has no python$version" \
    "install python$version and its venv module, or make the kit on a machine with the Python of this one"
  [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$version" ] ||
    fail 18 "$python is of another version than $version, which the kit is for" "name another with --python"
  "$python" -c 'import venv' 2>/dev/null || fail 18 "$python has no venv module" "on Debian: python3-venv"
  for file in "$LINK" "$PREVIOUS"; do
    [ ! -e "$file" ] || [ -h "$file" ] || fail 18 "$file is there and no link" "move it away; it was not made from here"
  done
  [ ! -e "$COMMAND" ] || [ "$(readlink "$COMMAND")" = "$LINK/bin/airlift" ] ||
    fail 18 "$COMMAND is there and leads elsewhere" "move it away; it was not made from here"
  [ ! -e "$SITE" ] || [ -f "$SITE/site.yaml" ] || fail 18 "$SITE is there and has no site.yaml" \
    "bring it back from the backup, or move the directory away"
}

check_trust() {
  [ -f trust.json ] || fail 2 "this kit has no trust.json" "make it with: airlift kit make --trust FILE"
  if [ -n "$fingerprint" ] && [ "$(plain_hex "$fingerprint")" != "$(plain_hex "$(cat trust.fingerprint)")" ]; then
    say "the kit says:   $(cat trust.fingerprint)"
    say "you said:       $fingerprint"
    fail 14 "the trust file of this kit is not the one of your paper" "go no further, and ask the release engineer"
  fi
  if [ -f "$SITE/site.yaml" ] && ! same trust.json "$SITE/trust.json"; then
    fail 14 "the site pinned another trust file than this kit carries" \
      "where the paper names the kit's, pin it, then run this again: cd / && runuser -u $USER_NAME -- airlift site trust\
 --site $SITE --trust $kit/trust.json --fingerprint HEX"
  fi
}

check_wishes() {
  local is_new=yes
  [ ! -f "$SITE/site.yaml" ] || is_new=''
  [ -n "$url" ] || [ -z "$is_new" ] || fail 2 "--url is missing" "where do clients reach the site? see --help"
  case $url in '' | http://?* | https://?*) ;; *) fail 2 "--url $url: expected http://HOST:PORT or https://HOST:PORT" ;; esac
  [ -z "$listen" ] || "$python" -I -c "$ADDRESS" "$listen" 2>/dev/null ||
    fail 2 "--listen $listen: expected ADDRESS:PORT, such as 0.0.0.0:8080" "systemd takes no names here"
  if [ -z "$is_new" ]; then
    [ -z "$url" ] || [ "$url" = "$(setting url)" ] ||
      fail 2 "the site's url is $(setting url), not $url" "a site is never overwritten; edit $SITE/site.yaml"
    [ -z "$listen" ] || [ "$listen" = "$(setting listen)" ] ||
      fail 2 "the site listens on $(setting listen), not $listen" "edit $SITE/site.yaml, then run this without --listen"
  fi
  for file in "$identity" "$passphrase" "$cert" "$key"; do
    [ -z "$file" ] || [ -r "$file" ] || fail 2 "$file: no such file"
  done
  [ -z "$identity" ] || [ ! -f "$IDENTITY" ] || same "$identity" "$IDENTITY" ||
    fail 2 "the site has another identity than $identity" "it opens the site's bundles, and is not exchanged from here"
  [ -z "$passphrase" ] || [ -n "$identity" ] || fail 2 "--passphrase-file without --identity"
  [ -z "$passphrase" ] || check_passphrase "$is_new"
  check_certificate "$is_new"
}

check_passphrase() {
  local said
  if [ -z "$1" ]; then
    grep -q '^passphrase_file:' "$SITE/site.yaml" || fail 2 "the site does not look for a passphrase" \
      "add to $SITE/site.yaml: passphrase_file: $STATE/passphrase"
    [ ! -f "$STATE/passphrase" ] || same "$passphrase" "$STATE/passphrase" ||
      fail 2 "the site has another passphrase than $passphrase" "it opens the site's identity, and is not exchanged from here"
    return 0
  fi
  # An openssl that knows no ML-KEM decrypts it all the same, and says when it cannot.
  said=$(sed -n '1s/\r*$//p' "$passphrase" | openssl pkey -in "$identity" -passin stdin -noout 2>&1) || true
  case $said in
    *"bad decrypt"*) fail 2 "the first line of $passphrase does not open $identity" ;;
  esac
}

check_certificate() {
  local of_cert of_key
  if [ -z "$cert$key" ]; then return 0; fi
  [ -n "$cert" ] && [ -n "$key" ] || fail 2 "expected both --tls-cert and --tls-key, got one"
  [ -n "$1" ] || grep -q '^tls:' "$SITE/site.yaml" ||
    fail 2 "the site answers without TLS" "add to $SITE/site.yaml: tls: {certificate: $TLS/chain.pem, key: $TLS/key.pem}"
  of_cert=$(openssl x509 -in "$cert" -noout -pubkey 2>/dev/null) || fail 2 "$cert: expected a certificate in PEM"
  of_key=$(openssl pkey -in "$key" -pubout -passin pass: 2>/dev/null) ||
    fail 2 "$key: expected a PEM key without a passphrase"
  [ "$of_cert" = "$of_key" ] || fail 2 "$key is not the key of $cert"
}

# ------------------------------------------------------------------------------------------------ changing

# Say what is done, or would be; false in a dry run.
doing() {
  changes=$((changes + 1))
  if [ -n "$dry" ]; then
    say "would $1"
    return 1
  fi
  say "$1"
}

# owe FILE: what runs has to be told of a change, by the next run where this one is killed
owe() {
  owed="$owed $1 "
  if [ -z "$dry" ]; then : >"$1"; fi
}
is_owed() {
  [ -e "$1" ] || case $owed in *" $1 "*) ;; *) return 1 ;; esac
}

# put SOURCE TARGET MODE OWNER WHAT: a whole file in one step
put() {
  if same "$1" "$2" && [ "$(stat -c '%a %U' "$2")" = "$3 $4" ]; then return 0; fi
  doing "write $2${5:+ ($5)}" || return 0
  install -m "$3" -o "$4" -g "$4" -- "$1" "$2.new"
  sync "$2.new"
  mv -fT -- "$2.new" "$2"
}

remove() {
  if [ ! -e "$1" ] && [ ! -h "$1" ]; then return 0; fi
  doing "remove $1" || return 0
  rm -rf -- "$1"
}

# folder PATH MODE OWNER
folder() {
  if [ -d "$1" ] && [ "$(stat -c '%a %U' "$1")" = "$2 $3" ]; then return 0; fi
  doing "make the directory $1" || return 0
  install -d -m "$2" -o "$3" -g "$3" -- "$1"
}

# lead LINK TARGET
lead() {
  if [ "$(readlink "$1" 2>/dev/null)" = "$2" ]; then return 0; fi
  doing "let $1 lead to $2" || return 0
  ln -sfn "$2" "$1.new"
  mv -fT "$1.new" "$1"
}

as_user() { (cd / && runuser -u "$USER_NAME" -- "$@" </dev/null); }

install_airlift() {
  local version pip before
  version=$LINK-$(sha256sum SHA256SUMS | cut -c1-12)
  before=$(installed "$LINK") || before=$version
  if [ ! -f "$version/$VENV_OK" ] && doing "install airlift into $version"; then
    rm -rf -- "$version"
    install -d -m 755 "${LINK%/*}"
    pip=$(sed -n 's/^[0-9a-f]*  \(wheels\/pip-.*\.whl\)$/\1/p' SHA256SUMS)
    "$python" -m venv --without-pip "$version"
    # Exactly the signed wheels: every one by its digest, none from elsewhere.
    env -i PATH="$PATH" HOME=/nonexistent LC_ALL=C.UTF-8 PIP_CONFIG_FILE=/dev/null "$version/bin/python" "$pip/pip" \
      install --quiet --disable-pip-version-check --no-input --no-cache-dir --root-user-action=ignore \
      --no-index --find-links wheels --require-hashes --requirement requirements.txt </dev/null >&2 ||
      fail 1 "pip did not install the wheels" "its own words are above"
    sync -f "$version"
    : >"$version/$VENV_OK"
  fi
  if [ "$before" != "$version" ]; then lead "$PREVIOUS" "$before"; fi
  if [ -d "$STATE" ] && [ "$(readlink "$LINK")" != "$version" ]; then owe "$RESTART"; fi
  lead "$LINK" "$version"
  if [ "$before" = "$version" ]; then before=$(installed "$PREVIOUS") || before=''; fi
  keep="$version $before"
  if [ ! -h "$COMMAND" ] && doing "let $COMMAND lead to $LINK/bin/airlift"; then
    install -d -m 755 "${COMMAND%/*}"
    ln -s "$LINK/bin/airlift" "$COMMAND"
  fi
}

# After the restart: what runs may need its files until then.
remove_older() {
  for file in "$LINK"-????????????; do
    case " $keep " in *" $file "*) ;; *) remove "$file" ;; esac
  done
}

make_user() {
  if ! getent group "$USER_NAME" >/dev/null && doing "make the group $USER_NAME"; then
    groupadd --system "$USER_NAME"
  fi
  if ! has_user && doing "make the user $USER_NAME"; then
    useradd --system --gid "$USER_NAME" --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin "$USER_NAME"
  fi
}

make_identity() {
  local said
  if [ -n "$passphrase" ]; then put "$passphrase" "$STATE/passphrase" 400 "$USER_NAME"; fi
  if [ -n "$identity" ]; then
    put "$identity" "$IDENTITY" 400 "$USER_NAME" "the site's identity"
  elif [ ! -f "$IDENTITY" ] && doing "make the site's identity $IDENTITY"; then
    rm -rf -- "$STATE/.identity"
    as_user mkdir -m 700 "$STATE/.identity"
    said=$(as_user "$LINK/bin/airlift" keys generate site --kind identity --no-passphrase --out "$STATE/.identity" 2>&1) ||
      fail 1 "airlift keys generate failed: $said"
    # The public half first: with the private one under its name, both are there.
    mv -fT -- "$STATE/.identity/site.pub" "$STATE/site.pub"
    mv -fT -- "$STATE/.identity/site.key" "$IDENTITY"
    rm -rf -- "$STATE/.identity"
  fi
}

make_site() {
  local said
  put trust.json "$STATE/trust.json" 444 "$USER_NAME" "whom the site believes"
  if [ -n "$cert" ]; then
    folder "$TLS" 750 "$USER_NAME"
    if ! { same "$key" "$TLS/key.pem" && same "$cert" "$TLS/chain.pem"; }; then owe "$RELOAD"; fi
    put "$key" "$TLS/key.pem" 400 "$USER_NAME"
    put "$cert" "$TLS/chain.pem" 444 "$USER_NAME"
  fi
  if [ -f "$SITE/site.yaml" ]; then return 0; fi
  doing "make the site $SITE" || return 0
  rm -rf -- "$STATE/.site"
  set -- --trust "$STATE/trust.json" --url "$url" --identity "$IDENTITY"
  [ -z "$listen" ] || set -- "$@" --listen "$listen"
  [ -z "$fingerprint" ] || set -- "$@" --fingerprint "$fingerprint"
  [ -z "$passphrase" ] || set -- "$@" --passphrase-file "$STATE/passphrase"
  [ -z "$cert" ] || set -- "$@" --tls-cert "$TLS/chain.pem" --tls-key "$TLS/key.pem"
  said=$(as_user "$LINK/bin/airlift" site init "$STATE/.site" "$@" 2>&1) || {
    printf '%s\n' "$said" >&2
    fail 1 "airlift site init failed" "its own words are above"
  }
  mv -T -- "$STATE/.site" "$SITE"
}

trust_authorities() {
  local is_missing=''
  [ -d ca ] || return 0
  folder "$ANCHORS" 755 root
  for file in ca/*.crt; do
    put "$file" "$ANCHORS/${file#ca/}" 644 root "an authority to trust"
    grep -qxF -- "$(sed -n 2p "$file")" "$AUTHORITIES" 2>/dev/null || is_missing=yes
  done
  if [ -n "$is_missing" ]; then update_authorities; fi
}

update_authorities() {
  if command -v update-ca-certificates >/dev/null; then
    if doing "let the machine trust them (update-ca-certificates)"; then update-ca-certificates >/dev/null; fi
  else
    say "note: this machine has no update-ca-certificates; tell its programs of $ANCHORS yourself"
  fi
}

install_units() {
  folder "$UNITS" 755 root
  for unit in airlift-serve.service airlift-serve.socket; do
    if ! same "$unit" "$UNITS/$unit"; then owe "$RESTART"; fi
    put "$unit" "$UNITS/$unit" 644 root
  done
  folder "${LISTEN_FILE%/*}" 755 root
  if [ -f "$SITE/site.yaml" ]; then listen=$(setting listen); fi
  if [ "$(cat "$LISTEN_FILE" 2>/dev/null)" != "$(listen_text)" ] && doing "write $LISTEN_FILE"; then
    owe "$RESTART"
    listen_text >"$LISTEN_FILE.new"
    chmod 644 "$LISTEN_FILE.new"
    mv -fT "$LISTEN_FILE.new" "$LISTEN_FILE"
  fi
}

listen_text() {
  printf '# What site.yaml says, written by provision.sh: the empty line forgets what the unit says.\n'
  printf '[Socket]\nListenStream=\nListenStream=%s\n' "${listen:-as site.yaml will say}"
}

start() {
  if ! has_systemd; then
    if is_owed "$RESTART" && [ -h "$PREVIOUS" ]; then
      say "note: what serves the site now goes on as it was; stop it, and start it again"
    fi
    if [ -z "$dry" ]; then rm -f -- "$RESTART" "$RELOAD"; fi
    say "systemd does not run here; start the site with: runuser -u $USER_NAME -- airlift serve --site $SITE"
    return 0
  fi
  if is_owed "$RESTART" && doing "let systemd read its units again"; then systemctl daemon-reload; fi
  if ! { unit_is enabled airlift-serve.socket && unit_is enabled airlift-serve.service; } &&
    doing "enable airlift-serve"; then
    systemctl enable --quiet airlift-serve.socket airlift-serve.service
  fi
  if is_owed "$RESTART" && unit_is active airlift-serve.service && doing "stop what runs of an earlier kit"; then
    systemctl stop airlift-serve.service airlift-serve.socket
  elif is_owed "$RELOAD" && unit_is active airlift-serve.service && doing "let airlift-serve read the certificate"; then
    systemctl reload airlift-serve.service
  fi
  if ! { unit_is active airlift-serve.socket && unit_is active airlift-serve.service; } && doing "start airlift-serve"; then
    systemctl start airlift-serve.socket airlift-serve.service ||
      fail 1 "airlift-serve does not start" "systemctl status airlift-serve.socket airlift-serve.service says why"
  fi
  if [ -z "$dry" ]; then rm -f -- "$RESTART" "$RELOAD"; fi
}

# ------------------------------------------------------------------------------------------------ taking it back

take_back() {
  local had_authorities=''
  if has_systemd; then
    for unit in airlift-serve.service airlift-serve.socket; do
      [ -f "$UNITS/$unit" ] || continue
      if doing "stop and disable $unit"; then systemctl disable --quiet --now "$unit"; fi
    done
  fi
  for unit in airlift-serve.service airlift-serve.socket "$(basename "${LISTEN_FILE%/*}")"; do remove "$UNITS/$unit"; done
  if has_systemd && [ -z "$dry" ]; then systemctl daemon-reload; fi
  if [ "$(readlink "$COMMAND" 2>/dev/null)" = "$LINK/bin/airlift" ]; then remove "$COMMAND"; fi
  for file in "$LINK" "$PREVIOUS"; do
    if [ -h "$file" ]; then remove "$file"; fi
  done
  for file in "$LINK"-????????????; do remove "$file"; done
  for file in "$ANCHORS"/airlift-????????????.crt; do
    if [ -e "$file" ]; then had_authorities=yes; fi
    remove "$file"
  done
  if [ -n "$had_authorities" ] && [ -z "$dry" ] && command -v update-ca-certificates >/dev/null; then
    update-ca-certificates --fresh >/dev/null
  fi
  if [ -n "$remove_state" ]; then
    remove "$STATE"
    if has_user && doing "remove the user $USER_NAME"; then userdel "$USER_NAME"; fi
  elif [ -e "$STATE" ]; then
    say "$STATE and the user $USER_NAME stay; --undo --remove-state removes them too"
  fi
  [ "$changes" -gt 0 ] || say "there is nothing to undo"
}

# ------------------------------------------------------------------------------------------------ the order

[ -z "$remove_state" ] || [ -n "$undo" ] || fail 2 "--remove-state belongs to --undo"
[ "$(id -u)" = 0 ] || fail 2 "this is for root" "sudo sh provision.sh ..."
if [ -z "$dry" ]; then
  exec 9</usr
  flock -n 9 || fail 1 "another provision.sh is running" "wait for it, then run the same command again"
fi
if [ -n "$undo" ]; then
  take_back
  exit 0
fi
check_programs
check_kit
check_machine
check_trust
check_wishes

make_user
install_airlift
folder "$STATE" 750 "$USER_NAME"
make_identity
make_site
trust_authorities
install_units
start
remove_older
if [ -n "$dry" ]; then
  say "$changes changes would be made; nothing was changed"
  exit 0
fi
[ "$changes" -gt 0 ] || say "everything is in place; nothing was changed"
say "trust fingerprint: $(cat trust.fingerprint)"
if [ -f "$STATE/site.pub" ]; then
  say "the site's public key, for the release engineer ($STATE/site.pub):"
  cat "$STATE/site.pub"
fi
