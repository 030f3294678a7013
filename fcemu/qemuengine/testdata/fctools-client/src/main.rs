//! Drives a VMM through the life of a guest, as an ordinary user of fctools
//! does: boot, pause, resume, snapshot, shut down, restore, kill.
//!
//! usage: fctools-client FIRECRACKER GUEST_DIR WORK_DIR

use std::{env, error::Error, path::PathBuf, time::Duration};

use fctools::{
    process_spawner::DirectProcessSpawner,
    runtime::tokio::TokioRuntime,
    vm::{
        api::VmApi,
        configuration::{InitMethod, VmConfiguration, VmConfigurationData},
        models::{BootSource, CreateSnapshot, Drive, MachineConfiguration, SnapshotType},
        shutdown::{VmShutdownAction, VmShutdownMethod},
        snapshot::PrepareVmFromSnapshotOptions,
        Vm, VmState,
    },
    vmm::{
        arguments::{VmmApiSocket, VmmArguments},
        executor::unrestricted::UnrestrictedVmmExecutor,
        installation::VmmInstallation,
        ownership::VmmOwnershipModel,
        resource::{system::ResourceSystem, MovedResourceType, ResourceType},
    },
};
use futures_util::{io::BufReader, io::Lines, AsyncBufReadExt, AsyncRead, StreamExt};
use tokio::{fs, time::timeout};

type Fault = Box<dyn Error>;
type Machine = Vm<UnrestrictedVmmExecutor, DirectProcessSpawner, TokioRuntime>;

const PATIENCE: Duration = Duration::from_secs(60);
const MOVED: ResourceType = ResourceType::Moved(MovedResourceType::Copied);

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let args: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [firecracker, guest, work] = args.as_slice() else {
        return Err("usage: fctools-client FIRECRACKER GUEST_DIR WORK_DIR".into());
    };
    let disk = work.join("rootfs.ext4");
    fs::copy(guest.join("rootfs.ext4"), &disk).await?;

    let mut resources = ResourceSystem::new(
        DirectProcessSpawner,
        TokioRuntime,
        VmmOwnershipModel::Shared,
    );
    let data = VmConfigurationData {
        boot_source: BootSource {
            kernel_image: resources.create_resource(guest.join("vmlinux"), MOVED)?,
            boot_args: Some("console=ttyS0 reboot=k panic=1 quiet".into()),
            initrd: Some(resources.create_resource(guest.join("initrd"), MOVED)?),
        },
        drives: vec![Drive {
            drive_id: "rootfs".into(),
            is_root_device: true,
            cache_type: None,
            partuuid: None,
            is_read_only: Some(false),
            block: Some(resources.create_resource(&disk, MOVED)?),
            rate_limiter: None,
            io_engine: None,
            socket: None,
        }],
        machine_configuration: MachineConfiguration {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: None,
            track_dirty_pages: Some(true),
            huge_pages: None,
        },
        cpu_template: None,
        network_interfaces: Vec::new(),
        balloon_device: None,
        vsock_device: None,
        logger_system: None,
        metrics_system: None,
        mmds_configuration: None,
        entropy_device: None,
    };
    let executor = |socket: &str| {
        UnrestrictedVmmExecutor::new(VmmArguments::new(VmmApiSocket::Enabled(work.join(socket))))
    };
    let mut vm: Machine = Vm::prepare(
        executor("first.sock"),
        resources,
        VmmInstallation::new(firecracker, firecracker, firecracker),
        VmConfiguration::New {
            init_method: InitMethod::ViaApiCalls,
            data,
        },
    )
    .await?;

    vm.start(PATIENCE).await?;
    println!(
        "started: {:?}, version {}",
        vm.get_info().await?,
        vm.get_firecracker_version().await?
    );
    let mut console = BufReader::new(vm.take_pipes()?.stdout).lines();
    line_with(&mut console, "GUEST-READY").await?;
    println!("the guest is up, tick {}", next_tick(&mut console).await?);

    vm.pause().await?;
    want(&mut vm, VmState::Paused)?;
    vm.resume().await?;
    want(&mut vm, VmState::Running)?;
    let before = next_tick(&mut console).await?;
    println!("paused and resumed, tick {before}");

    vm.pause().await?;
    let create = CreateSnapshot {
        snapshot_type: Some(SnapshotType::Full),
        snapshot: vm
            .get_resource_system_mut()
            .create_resource(work.join("state"), ResourceType::Produced)?,
        mem_file: vm
            .get_resource_system_mut()
            .create_resource(work.join("memory"), ResourceType::Produced)?,
    };
    let mut snapshot = vm.create_snapshot(create).await?;
    // The first VM's own files go with it.
    snapshot
        .copy(
            &TokioRuntime,
            work.join("state.kept"),
            work.join("memory.kept"),
        )
        .await?;
    fs::copy(&disk, work.join("disk.kept")).await?;
    vm.resume().await?;
    println!("snapshot taken");

    let mut clone = snapshot
        .prepare_vm(
            &mut vm,
            PrepareVmFromSnapshotOptions {
                executor: executor("second.sock"),
                process_spawner: DirectProcessSpawner,
                runtime: TokioRuntime,
                moved_resource_type: MovedResourceType::Copied,
                ownership_model: VmmOwnershipModel::Shared,
                enable_diff_snapshots: Some(false),
                resume_vm: Some(true),
            },
        )
        .await?;
    stop(&mut vm, VmShutdownMethod::CtrlAltDel).await?;
    fs::copy(work.join("disk.kept"), &disk).await?;

    clone.start(PATIENCE).await?;
    let mut console = BufReader::new(clone.take_pipes()?.stdout).lines();
    let after = next_tick(&mut console).await?;
    println!("restored: {:?}, tick {after}", clone.get_info().await?);
    if after <= before || after > before + 20 {
        return Err(
            format!("the clone's counter is at {after}, the snapshot's was at {before}").into(),
        );
    }
    stop(&mut clone, VmShutdownMethod::PauseThenKill).await?;
    println!("ok");
    Ok(())
}

fn want(vm: &mut Machine, state: VmState) -> Result<(), Fault> {
    match vm.get_state() {
        s if s == state => Ok(()),
        s => Err(format!("the VM is {s:?}, not {state:?}").into()),
    }
}

async fn stop(vm: &mut Machine, method: VmShutdownMethod) -> Result<(), Fault> {
    let graceful = method == VmShutdownMethod::CtrlAltDel;
    let outcome = vm
        .shutdown([VmShutdownAction {
            method,
            timeout: Some(PATIENCE),
            graceful,
        }])
        .await?;
    println!("stopped: {outcome:?}");
    if graceful && vm.get_state() != VmState::Exited {
        return Err(format!("the VM is {:?} after Ctrl-Alt-Del", vm.get_state()).into());
    }
    vm.cleanup().await?;
    Ok(())
}

async fn line_with<R: AsyncRead + Unpin>(
    console: &mut Lines<BufReader<R>>,
    marker: &str,
) -> Result<String, Fault> {
    let search = async {
        while let Some(line) = console.next().await {
            let line = line?;
            if line.contains(marker) {
                return Ok(line);
            }
        }
        Err(format!("the console ended before {marker:?}").into())
    };
    timeout(PATIENCE, search).await?
}

async fn next_tick<R: AsyncRead + Unpin>(console: &mut Lines<BufReader<R>>) -> Result<u32, Fault> {
    let line = line_with(console, "tick ").await?;
    let number = line.rsplit("tick ").next().unwrap_or_default();
    Ok(number.trim().parse()?)
}
