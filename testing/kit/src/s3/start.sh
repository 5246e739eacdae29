# Starts one monitor, one storage daemon in memory and one gateway on 127.0.0.1, and ends them with
# the process that is named last: start.sh FOLDER MONITOR-PORT GATEWAY-PORT RUNNER OWNER GUEST EXPIRY SECRET
set -u
D=$1 MON=$2 RGW=$3 RUNNER=$4 OWNER=$5 GUEST=$6 EXPIRY=$7 SECRET=$8
PIDS=''
end() {
  # shellcheck disable=SC2086 # a list of numbers
  [ -z "$PIDS" ] || kill -9 $PIDS 2>/dev/null
  rm -rf "$1"
}
fail() {
  echo "failed: $*"
  touch "$D/failed"
  # Long enough for the test to read the logs.
  sleep 5
  end "$D"
  exit 1
}
mkdir -p "$D/mon" "$D/osd" "$D/run"
FSID=$(cat /proc/sys/kernel/random/uuid)
OSD=$(cat /proc/sys/kernel/random/uuid)
cat >"$D/ceph.conf" <<CONF
[global]
fsid = $FSID
mon host = [v2:127.0.0.1:$MON/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $D/keyring
run dir = $D/run
admin socket =
pid file =
crash dir = $D/run
log file =
log to stderr = false
mon cluster log file = /dev/null
mon data = $D/mon
osd data = $D/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
mon data avail warn = 2
paxos propose interval = 0.05
paxos min wait = 0.01
mon osd initial require min compat client = luminous
rgw frontends = beast endpoint=127.0.0.1:$RGW
rgw thread pool size = 64
rgw enable usage log = false
rgw enable gc threads = false
rgw enable lc threads = false
rgw run sync thread = false
CONF
key() { ceph-authtool "$D/keyring" --gen-key -n "$@" >/dev/null || fail "make a key"; }
ceph-authtool --create-keyring "$D/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
key client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
key osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
key client.rgw --cap mon 'allow rw' --cap osd 'allow rwx'
monmaptool --create --fsid "$FSID" --addv a "[v2:127.0.0.1:$MON]" "$D/monmap" >/dev/null
C="-c $D/ceph.conf"
# shellcheck disable=SC2086 # two words
{
  ceph-mon $C -i a --mkfs --monmap "$D/monmap" --keyring "$D/keyring" || fail "prepare the monitor"
  ceph-mon $C -i a -f >"$D/mon.out" 2>&1 &
  PIDS="$PIDS $!"
  timeout 30 ceph $C -n client.admin osd new "$OSD" || fail "the monitor does not answer"
  ceph-osd $C -i 0 --mkfs --osd-uuid "$OSD" --monmap "$D/monmap" --no-mon-config ||
    fail "prepare the storage daemon"
  ceph-osd $C -i 0 -f >"$D/osd.out" 2>&1 &
  PIDS="$PIDS $!"
  radosgw $C -n client.rgw -f >"$D/rgw.out" 2>&1 &
  PIDS="$PIDS $!"
  for user in "owner $OWNER" "guest $GUEST" "expiry $EXPIRY"; do
    set -- $user
    timeout 60 radosgw-admin $C -n client.admin user create --uid="$1" --display-name="$1" \
      --access-key="$2" --secret-key="$SECRET" >/dev/null || fail "make the account $1"
  done
}
tries=0
until (: <"/dev/tcp/127.0.0.1/$RGW") 2>/dev/null; do
  tries=$((tries + 1))
  [ $tries -lt 600 ] || fail "the gateway does not listen"
  sleep 0.1
done
touch "$D/ready"
while kill -0 "$RUNNER" 2>/dev/null; do sleep 0.2; done
end "${D%/*}"
