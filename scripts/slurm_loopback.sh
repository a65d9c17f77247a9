#!/usr/bin/env bash
# A Slurm of one machine, to try or test what a cluster does: no systemd, nothing outside its folder.
#
#   eval "$(scripts/slurm_loopback.sh start)"   # sets SLURM_CONF, which makes sbatch find it
#   scripts/slurm_loopback.sh stop              # ends its jobs and daemons, and removes the folder
#
# Both can be repeated. Controller, node and key daemon belong to the user who starts them and listen
# on 127.0.0.1. The node claims four processors and four GPUs: work is shared out, not measured.
set -euo pipefail

dir=${SLURM_LOOPBACK:-${TMPDIR:-/tmp}/slurm-loopback-$(id -un)}
export SLURM_CONF=$dir/slurm.conf
export PATH=$PATH:/usr/sbin:/sbin
munge_socket=$dir/munge/socket

say() { echo "slurm_loopback: $*" >&2; }

fail() {
  say "$@"
  exit 1
}

answers() { timeout 5 sinfo --noheader --format=%T 2>/dev/null | grep -qE '^(idle|mixed|allocated)'; }

running() { [[ -s $1 ]] && kill -0 "$(<"$1")"; } 2>/dev/null

require() {
  local missing=()
  for program in munged slurmctld slurmd sinfo; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  if ((${#missing[@]})); then
    fail "${missing[*]} not found: apt-get install -y --no-install-recommends slurm-wlm munge"
  fi
}

write_conf() {
  local host user memory
  host=$(hostname -s) user=$(id -un)
  memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
  # cred_expire is also how long a requeued job waits before it may start again (else 120 s).
  cat >"$SLURM_CONF" <<CONF
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$((base_port))
SlurmdPort=$((base_port + 1))
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$munge_socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=20
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=$memory Gres=gpu:4 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
  # It wants a device for each GPU, and without constraints never opens it.
  printf 'Name=gpu File=/dev/%s\n' null zero full random >"$dir/gres.conf"
  printf '%s\n' CgroupPlugin=cgroup/v1 CgroupAutomount=no ConstrainCores=no >"$dir/cgroup.conf"
}

start() {
  require
  if running "$dir/slurmctld.pid" && answers; then
    say "already running in $dir"
  else
    stop
    mkdir -p -m 755 "$dir" "$dir/munge" "$dir/state" "$dir/spool"
    base_port=$((20000 + RANDOM % 10000))
    (umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
    write_conf
    # --force: whether other users can reach the socket is of no matter here.
    munged --force --key-file="$dir/munge/key" --socket="$munge_socket" --pid-file="$dir/munge/pid" \
      --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" 2>/dev/null ||
      fail "munged did not start; see $dir/munge/log"
    slurmctld || fail "slurmctld did not start; see $dir/slurmctld.log"
    slurmd || fail "slurmd did not start; see $dir/slurmd.log"
    for _ in $(seq 60); do
      answers && break
      sleep 0.5
    done
    answers || fail "the node does not come up; see $dir/slurmctld.log and $dir/slurmd.log"
    say "running in $dir"
  fi
  echo "export SLURM_CONF=$SLURM_CONF"
}

stop() {
  [[ -d $dir ]] || return 0
  if running "$dir/slurmctld.pid" && answers; then
    scancel --user="$(id -un)" || true
    for _ in $(seq 60); do
      [[ -z $(squeue --noheader) ]] && break
      sleep 0.5
    done
  fi
  for pid in "$dir"/slurmd.pid "$dir"/slurmctld.pid "$dir"/munge/pid; do
    if running "$pid"; then
      kill "$(<"$pid")" 2>/dev/null || true # it may be leaving already
      for _ in $(seq 60); do
        running "$pid" || break
        sleep 0.5
      done
    fi
  done
  rm -rf "$dir"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  *) fail "usage: slurm_loopback.sh start|stop" ;;
esac
