#!/usr/bin/env bash
# Checks that containerd has all images, complete and pinned.
# IMAGES: as for pull-images.sh
set -euo pipefail
: "${IMAGES?is not set}" "${CONTAINERD_ADDRESS:=/run/containerd/containerd.sock}"
export CONTAINERD_ADDRESS CONTAINERD_NAMESPACE=k8s.io

systemctl is-active --quiet containerd || systemctl start containerd
missing=0
for image in $IMAGES; do
  name="${image%@*}" digest="${image##*@}"
  names=("$name")
  case "${name##*/}" in
    *:*) names+=("${name%:*}@$digest") ;;
    *) names=("$name@$digest") ;;
  esac
  for each in "${names[@]}"; do
    if [ -z "$(ctr images check --quiet "name==$each")" ]; then
      echo "verify-images: missing or incomplete: $each" >&2
      missing=1
    elif ! ctr images list "name==$each" | grep -q 'io.cri-containerd.pinned=pinned'; then
      echo "verify-images: not pinned, so that the kubelet may remove it: $each" >&2
      missing=1
    fi
  done
done
if [ "$missing" -ne 0 ]; then
  echo "verify-images: containerd's folder must be the same as when the images were pulled, such as no instance store over /var/lib/containerd" >&2
  exit 1
fi
echo "verify-images: all images are there"
