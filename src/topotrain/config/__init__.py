"""YAML and overrides to one frozen, validated ``TrainConfig``; other rooms import these names from here."""

from topotrain.config.loading import Draft as Draft
from topotrain.config.loading import Layer as Layer
from topotrain.config.loading import LoadedConfig as LoadedConfig
from topotrain.config.loading import config_of_mapping as config_of_mapping
from topotrain.config.loading import draft_config as draft_config
from topotrain.config.loading import layer_of as layer_of
from topotrain.config.loading import load_config as load_config
from topotrain.config.loading import merge as merge
from topotrain.config.loading import parse_override as parse_override
from topotrain.config.loading import separate as separate
from topotrain.config.paths import absolute_path as absolute_path
from topotrain.config.paths import absolute_uri as absolute_uri
from topotrain.config.sections import DataloaderConfig as DataloaderConfig
from topotrain.config.sections import Float as Float
from topotrain.config.sections import LoggingConfig as LoggingConfig
from topotrain.config.sections import PositiveInt as PositiveInt
from topotrain.config.sections import SelectionConfig as SelectionConfig
from topotrain.config.sections import TrainConfig as TrainConfig
from topotrain.config.sections import TrainerConfig as TrainerConfig
from topotrain.config.validation import as_config_error as as_config_error
from topotrain.config.validation import known_dotted_keys as known_dotted_keys
from topotrain.config.validation import shown as shown
from topotrain.config.validation import validate as validate
from topotrain.reading.yaml_file import read_yaml as read_yaml
