#!/usr/bin/env bash
# Pulls images into the store of the kubelet's containerd, and keeps its garbage collection away.
# IMAGES: REGISTRY/REPOSITORY:TAG@sha256:DIGEST, separated by spaces; the tag may be missing
# CONTAINERD_ADDRESS, HOSTS_FOLDER: containerd's socket, and its configuration of registries
set -euo pipefail
: "${IMAGES?is not set}" "${CONTAINERD_ADDRESS:=/run/containerd/containerd.sock}"
: "${HOSTS_FOLDER:=/etc/containerd/certs.d}"
export CONTAINERD_ADDRESS CONTAINERD_NAMESPACE=k8s.io

fail() {
  echo "pull-images: $1" >&2
  exit 1
}

# Credentials are in files of /run only, which is no part of the image: not in arguments.
secrets=$(mktemp --directory --tmpdir="${RUN_FOLDER:-/run}")
trap 'rm -rf "$secrets"' EXIT

log_in() { # REGISTRY, of ECR
  local region password
  region=$(sed -E 's/.*\.dkr\.ecr[^.]*\.([^.]+)\..*/\1/' <<<"$1")
  if ! password=$(aws ecr get-login-password --region "$region"); then
    fail "cannot log in to $1: add its repositories to ecr_repository_arns"
  fi
  mkdir -p "$secrets/$1"
  (
    umask 077
    cat >"$secrets/$1/hosts.toml" <<END
server = "https://$1"
[host."https://$1"]
  capabilities = ["pull", "resolve"]
  [host."https://$1".header]
    Authorization = "Basic $(printf 'AWS:%s' "$password" | base64 --wrap=0)"
END
  )
}

pull() { # REGISTRY, REFERENCE
  local hosts="$HOSTS_FOLDER"
  case "$1" in
    *.dkr.ecr.*.amazonaws.com | *.dkr.ecr.*.amazonaws.com.cn | *.dkr.ecr-fips.*.amazonaws.com)
      [ -e "$secrets/$1" ] || log_in "$1"
      hosts="$secrets"
      ;;
  esac
  for attempt in 1 2 3; do
    if ctr images pull --hosts-dir "$hosts" "$2" >/dev/null; then
      return
    fi
    echo "pull-images: attempt $attempt of 3 failed: $2" >&2
    sleep "${RETRY_SECONDS:-10}"
  done
  fail "cannot pull $2: check the name and the digest, the subnet's way to the registry, and ecr_repository_arns"
}

systemctl is-active --quiet containerd || systemctl start containerd
for image in $IMAGES; do
  name="${image%@*}" digest="${image##*@}"
  repository="$name"
  case "${name##*/}" in
    *:*) repository="${name%:*}" ;;
  esac
  reference="$repository@$digest"
  if [ -n "$(ctr images check --quiet "name==$reference")" ]; then
    echo "pull-images: already there: $reference"
  else
    pull "${repository%%/*}" "$reference"
    echo "pull-images: pulled $reference"
  fi
  names=("$reference")
  if [ "$repository" != "$name" ]; then
    ctr images tag --force "$reference" "$name" >/dev/null
    names+=("$name")
  fi
  for each in "${names[@]}"; do
    # The kubelet removes unused images when the disk gets full, but no pinned ones.
    ctr images label "$each" io.cri-containerd.pinned=pinned >/dev/null
  done
done
