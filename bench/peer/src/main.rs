//! The crate fctools, as its ordinary user drives it, for comparison. One line on
//! stdin is one order, one line on stdout its answer:
//!
//!     up N    create and start N VMs at once    ok NANOSECONDS
//!     down    stop and clean up all of them     ok NANOSECONDS
//!
//! The time is taken here, so that the pipe costs the peer nothing. An answer
//! that does not begin with ok is an error.
//!
//! usage: peer VMM KERNEL ROOTFS BOOT_ARGS MEMORY_MIB WORK_DIR

use std::{env, error::Error, io::Write, path::PathBuf, time::Duration, time::Instant};

use fctools::{
    process_spawner::DirectProcessSpawner,
    runtime::tokio::TokioRuntime,
    vm::{
        configuration::{InitMethod, VmConfiguration, VmConfigurationData},
        models::{BootSource, Drive, MachineConfiguration},
        shutdown::{VmShutdownAction, VmShutdownMethod},
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
use futures_util::future::try_join_all;
use tokio::io::{AsyncBufReadExt, BufReader};

type Fault = Box<dyn Error + Send + Sync>;
type Machine = Vm<UnrestrictedVmmExecutor, DirectProcessSpawner, TokioRuntime>;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Setting {
    vmm: PathBuf,
    kernel: PathBuf,
    rootfs: PathBuf,
    boot_args: String,
    memory_mib: usize,
    work: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [vmm, kernel, rootfs, boot_args, memory_mib, work] = args.as_slice() else {
        return Err("usage: peer VMM KERNEL ROOTFS BOOT_ARGS MEMORY_MIB WORK_DIR".into());
    };
    let setting = Setting {
        vmm: vmm.into(),
        kernel: kernel.into(),
        rootfs: rootfs.into(),
        boot_args: boot_args.clone(),
        memory_mib: memory_mib.parse()?,
        work: work.into(),
    };
    let mut running: Vec<Machine> = Vec::new();
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        let began = Instant::now();
        let outcome = match order.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["up", n] => match n.parse() {
                Ok(n) => up(&setting, n).await.map(|vms| running.extend(vms)),
                Err(fault) => Err(Fault::from(fault)),
            },
            ["down"] => down(std::mem::take(&mut running)).await,
            _ => Err(format!("no such order: {order:?}").into()),
        };
        match outcome {
            Ok(()) => println!("ok {}", began.elapsed().as_nanos()),
            Err(fault) => println!("{}", fault.to_string().replace('\n', " ")),
        }
        std::io::stdout().flush()?;
    }
    down(running).await
}

async fn up(setting: &Setting, n: usize) -> Result<Vec<Machine>, Fault> {
    let all = (0..n).map(|i| tokio::spawn(start(setting.clone(), i)));
    try_join_all(all).await?.into_iter().collect()
}

async fn start(setting: Setting, i: usize) -> Result<Machine, Fault> {
    // What is "moved" to where it is already is neither copied nor linked.
    let stays = ResourceType::Moved(MovedResourceType::HardLinked);
    let mut resources = ResourceSystem::new(
        DirectProcessSpawner,
        TokioRuntime,
        VmmOwnershipModel::Shared,
    );
    let data = VmConfigurationData {
        boot_source: BootSource {
            kernel_image: resources.create_resource(&setting.kernel, stays)?,
            boot_args: Some(setting.boot_args),
            initrd: None,
        },
        drives: vec![Drive {
            drive_id: "rootfs".into(),
            is_root_device: true,
            cache_type: None,
            partuuid: None,
            is_read_only: Some(true),
            block: Some(resources.create_resource(&setting.rootfs, stays)?),
            rate_limiter: None,
            io_engine: None,
            socket: None,
        }],
        machine_configuration: MachineConfiguration {
            vcpu_count: 1,
            mem_size_mib: setting.memory_mib,
            smt: None,
            track_dirty_pages: None,
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
    let socket = setting.work.join(format!("{i}.sock"));
    let executor =
        UnrestrictedVmmExecutor::new(VmmArguments::new(VmmApiSocket::Enabled(socket))).disable_pipes();
    let mut vm: Machine = Vm::prepare(
        executor,
        resources,
        VmmInstallation::new(&setting.vmm, &setting.vmm, &setting.vmm),
        VmConfiguration::New {
            init_method: InitMethod::ViaApiCalls,
            data,
        },
    )
    .await?;
    vm.start(PATIENCE).await?;
    Ok(vm)
}

async fn down(vms: Vec<Machine>) -> Result<(), Fault> {
    let all = vms.into_iter().map(|vm| tokio::spawn(stop(vm)));
    try_join_all(all).await?.into_iter().collect()
}

async fn stop(mut vm: Machine) -> Result<(), Fault> {
    let outcome = vm
        .shutdown([VmShutdownAction {
            method: VmShutdownMethod::PauseThenKill,
            timeout: Some(PATIENCE),
            graceful: false,
        }])
        .await;
    // A process that has died before it is waited for is an error to the crate.
    match (outcome, vm.get_state()) {
        (Err(fault), VmState::NotStarted | VmState::Running | VmState::Paused) => {
            return Err(fault.into())
        }
        _ => vm.cleanup().await?,
    }
    Ok(())
}
