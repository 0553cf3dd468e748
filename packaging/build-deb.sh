#!/bin/sh
# Builds dist/gatewayd_VERSION_ARCH.deb: gatewayd with all its Python packages in a virtual environment of Debian's own
# python3, so it belongs to the Debian release it is built on. Needs dpkg-dev and python3-venv; no root.
set -eu
cd "$(dirname "$0")/.."
work=$PWD/build/deb
root=$work/root
home=/usr/lib/gatewayd/venv

for tool in dpkg-deb dpkg-shlibdeps /usr/bin/python3; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: apt install dpkg-dev python3-venv" >&2; exit 1; }
done
arch=$(dpkg --print-architecture)
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' gatewayd/__init__.py)
# Two builds of one tree are the same: every date is that of the newest source (of the commit, if the caller says so).
newest=$(find gatewayd systemd packaging config docs LICENSE CHANGELOG.md -type f ! -name '*.pyc' -printf '%T@\n' | sort -n | tail -1)
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-${newest%.*}}"
minor=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
above=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')

rm -rf "$work"
umask 022
mkdir -p "$root/DEBIAN" "$root${home%/*}" "$root/usr/bin" dist
packaging/venv.sh "$root$home" "$home" /usr/bin/python3

ln -s "../lib/gatewayd/venv/bin/gatewayd" "$root/usr/bin/gatewayd"
install -D -m 644 systemd/gatewayd.service "$root/lib/systemd/system/gatewayd.service"
install -D -m 644 systemd/udev/70-gatewayd.rules "$root/lib/udev/rules.d/70-gatewayd.rules"
install -D -m 644 systemd/sysusers.d/gatewayd.conf "$root/usr/lib/sysusers.d/gatewayd.conf"
install -D -m 644 systemd/tmpfiles.d/gatewayd.conf "$root/usr/lib/tmpfiles.d/gatewayd.conf"
install -D -m 640 config/gatewayd.yaml "$root/etc/gatewayd/gatewayd.yaml"
install -D -m 644 config/gatewayd.schema.json "$root/usr/share/gatewayd/gatewayd.schema.json"

doc=$root/usr/share/doc/gatewayd
mkdir -p "$doc"
install -m 644 docs/*.md README.md "$doc/"
install -m 644 packaging/debian/copyright "$doc/copyright"
"$root$home/bin/python" packaging/bundled.py "$root$home" >> "$doc/copyright"
gzip -9n < CHANGELOG.md > "$doc/changelog.gz"
for folder in grafana prometheus; do  # examples, where the tree has them
  [ ! -d "config/$folder" ] || { mkdir -p "$doc/examples" && cp -r "config/$folder" "$doc/examples/"; }
done

for script in postinst prerm postrm; do
  install -m 755 "packaging/debian/$script" "$root/DEBIAN/$script"
done
echo /etc/gatewayd/gatewayd.yaml > "$root/DEBIAN/conffiles"

# What the compiled packages need of the system, from their own tables; what they carry themselves is no dependency.
mkdir -p "$work/debian"
printf 'Source: gatewayd\n\nPackage: gatewayd\nArchitecture: any\n' > "$work/debian/control"
libraries=$(cd "$work" && find root/usr/lib/gatewayd -name '*.so*' -type f -print0 |
  xargs -0 dpkg-shlibdeps -O --ignore-missing-info --warnings=0 \
    $(find root/usr/lib/gatewayd -name '*.libs' -type d -printf '-l%p ') | sed -n 's/^shlibs:Depends=//p')
size=$(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$size/" -e "s/@LIBRARIES@/$libraries/" \
  -e "s/@PYTHON@/$minor/" -e "s/@PYTHON_ABOVE@/$above/" packaging/debian/control > "$root/DEBIAN/control"

chmod -R go-w "$root"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"
dpkg-deb --root-owner-group -Zxz -z3 --build "$root" "dist/gatewayd_${version}_$arch.deb" >/dev/null
rm -rf "$work"
echo "dist/gatewayd_${version}_$arch.deb"
