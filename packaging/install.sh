#!/bin/sh
# make install, make uninstall: gatewayd from the source tree, for systems without the Debian package.
#
#   packaging/install.sh install|uninstall
#
# Environment: PREFIX (/opt/gatewayd) is the virtual environment and nothing else; DESTDIR goes before every path, and
# then nothing of the running system is touched; INSTALL_PYTHON (/usr/bin/python3) must be readable for everybody.
set -eu
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/opt/gatewayd}
dest=${DESTDIR-}
dest=${dest%/}
python=${INSTALL_PYTHON:-/usr/bin/python3}
# Below /usr/local/lib, so /etc stays for the administrator's drop-ins.
lib=/usr/local/lib
unit=$lib/systemd/system/gatewayd.service
rules=$lib/udev/rules.d/70-gatewayd.rules
sysusers=$lib/sysusers.d/gatewayd.conf
tmpfiles=$lib/tmpfiles.d/gatewayd.conf
link=/usr/local/bin/gatewayd
config=/etc/gatewayd/gatewayd.yaml

die() {
  echo "$*" >&2
  exit 1
}

case $prefix in
  /*) ;;
  *) die "PREFIX=$prefix: an absolute path is expected, such as /opt/gatewayd" ;;
esac
umask 022

ours() {  # an environment of gatewayd, or nothing yet: everything below PREFIX is replaced
  [ ! -e "$dest$prefix" ] || { [ -e "$dest$prefix/pyvenv.cfg" ] && [ -e "$dest$prefix/bin/gatewayd" ]; } || [ -z "$(ls -A "$dest$prefix")" ]
}

live() { [ -z "$dest" ] && [ -d /run/systemd/system ]; }

check() {
  ours || die "PREFIX=$prefix holds other things than gatewayd: choose a folder for it alone, such as /opt/gatewayd"
  [ -n "$dest" ] || [ "$(id -u)" = 0 ] || die "be root, or give DESTDIR=FOLDER"
}

install_all() {
  check
  case $(readlink -m "$(command -v "$python" || echo "$python")") in
    "${HOME:-/home}"/*|/home/*) die "INSTALL_PYTHON=$python is in somebody's home: the service cannot run it; /usr/bin/python3 can be" ;;
  esac
  mkdir -p "$dest${prefix%/*}"
  rm -rf "$dest$prefix.new"
  packaging/venv.sh "$dest$prefix.new" "$prefix" "$python"
  rm -rf "$dest$prefix"
  mv "$dest$prefix.new" "$dest$prefix"
  mkdir -p "$dest${link%/*}" "$dest${unit%/*}"
  ln -sfn "$prefix/bin/gatewayd" "$dest$link"
  sed "s#/usr/bin/gatewayd#$prefix/bin/gatewayd#" systemd/gatewayd.service > "$dest$unit"
  install -D -m 644 systemd/udev/70-gatewayd.rules "$dest$rules"
  install -D -m 644 systemd/sysusers.d/gatewayd.conf "$dest$sysusers"
  install -D -m 644 systemd/tmpfiles.d/gatewayd.conf "$dest$tmpfiles"
  if [ -e "$dest$config" ]; then
    echo "$config is there and stays as it is"
  else
    install -d -m 750 "$dest/etc/gatewayd"
    install -m 640 config/gatewayd.yaml "$dest$config"
  fi
  if [ -z "$dest" ]; then
    systemd-sysusers "$sysusers"
    systemd-tmpfiles --create "$tmpfiles"
  fi
  if live; then
    systemctl daemon-reload
    udevadm control --reload && udevadm trigger --action=change --subsystem-match=usb --subsystem-match=tty || true
  fi
  cat <<END
gatewayd is in $prefix. Next:
  gatewayd apikey new myapp --file /etc/gatewayd/api-keys    prints the key, this once
  edit $config                            ports (ls /dev/gatewayd/), numbers, api_keys_file
  gatewayd check-config $config           every fault, with line and reason
  systemctl enable --now gatewayd                            after an upgrade: systemctl restart gatewayd
docs/install.md has the rest: first modem, ModemManager, credentials.
END
}

uninstall_all() {
  check
  if live; then
    systemctl disable --now gatewayd.service || true
  fi
  rm -f "$dest$link" "$dest$unit" "$dest$rules" "$dest$sysusers" "$dest$tmpfiles"
  rm -rf "$dest$prefix"
  if live; then
    systemctl daemon-reload
    udevadm control --reload || true
  fi
  echo "gatewayd is removed. Kept: /etc/gatewayd, /var/lib/gatewayd (the spool) and the user gatewayd; see docs/install.md."
}

case ${1-} in
  install) install_all ;;
  uninstall) uninstall_all ;;
  *) die "usage: packaging/install.sh install|uninstall" ;;
esac
